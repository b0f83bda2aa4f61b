// SPDX-License-Identifier: Apache-2.0
#include "core/tile_product.hpp"

#include "core/vector.hpp"

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

namespace qnext::tile {
namespace {

inline constexpr int register_rows = vector_registers == 32 ? 12 : 6;

// Sums of register_rows x 2 vectors stay in registers, beside two vectors of b and one element of
// a: 27 of 32 registers, or 15 of 16.
inline constexpr int vectors = 2;

// Terms of one pass: a panel of b, two vectors wide, then fits beside the rows of a in the first
// cache.
inline constexpr int block_terms = 256;

// A panel of b whose rows lie that many bytes apart is copied before that many rows use it: its
// rows share few sets of the cache and lie on pages of their own. Nearer rows are better read in
// place.
inline constexpr int far_bytes = 8192;
inline constexpr int packing_rows = 4 * register_rows;

// c (rows, width vectors) += scale a b for one register block. `b` has `step` elements between its
// rows and `c` is at least as wide as the block.
template <class Real, int rows, int width, bool turned>
void register_block(int K, Real scale, const Real* __restrict a, std::int64_t stride_a,
                    const Real* __restrict b, std::int64_t step, Real* c, std::int64_t stride) {
  using Vector = typename Lanes<Real>::Vector;
  using Unaligned = typename Lanes<Real>::Unaligned;
  constexpr int lanes = Lanes<Real>::count;
  Vector sum[rows][width] = {};
  for (int k = 0; k < K; ++k) {
    Vector right[width];
#pragma GCC unroll 4
    for (int v = 0; v < width; ++v) {
      right[v] = *reinterpret_cast<const Unaligned*>(b + v * lanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Real left = a[turned ? i : i * stride_a];
#pragma GCC unroll 4
      for (int v = 0; v < width; ++v) {
        sum[i][v] += left * right[v];
      }
    }
    a += turned ? stride_a : 1;
    b += step;
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < width; ++v) {
      Unaligned* const place = reinterpret_cast<Unaligned*>(c + i * stride + v * lanes);
      *place = *place + scale * sum[i][v];
    }
  }
}

template <class Real>
using Block = void (*)(int, Real, const Real*, std::int64_t, const Real*, std::int64_t, Real*,
                       std::int64_t);

// The register blocks of 1 ... register_rows rows.
template <class Real, int width, bool turned>
Block<Real> block_of(int rows) {
  static constexpr auto blocks = []<int... i>(std::integer_sequence<int, i...>) {
    return std::array<Block<Real>, sizeof...(i)>{register_block<Real, i + 1, width, turned>...};
  }
  (std::make_integer_sequence<int, register_rows>());
  return blocks[rows - 1];
}

// to(k, j) = from(j, k) for a square of as many rows as a vector has lanes.
template <class Real, class T>
void transpose_square(const T* from, std::int64_t from_stride, Real* to, int to_stride) {
  using Unaligned = typename Lanes<Real>::Unaligned;
  constexpr int lanes = Lanes<Real>::count;
  typename Lanes<Real>::Vector row[lanes];
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    row[i] = read<Real>(from + i * from_stride);
  }
  transpose_lanes<lanes>(row);
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    *reinterpret_cast<Unaligned*>(to + i * to_stride) = row[i];
  }
}

// Columns [0, columns) of b, terms [0, K), as rows of `width` vectors; columns that b lacks are
// zero.
template <class Real, int width, class T>
void pack(int K, int columns, const Strided<T>& b, Real* panel) {
  using Unaligned = typename Lanes<Real>::Unaligned;
  constexpr int lanes = Lanes<Real>::count, wide = width * lanes;
  const int whole_columns = columns / lanes * lanes;
  if (columns < wide) {
    std::fill_n(panel, K * wide, Real(0));
  }
  if (b.column == 1) {
    for (int k = 0; k < K; ++k) {
      const T* const row = b.data + k * b.row;
      for (int j = 0; j < whole_columns; j += lanes) {
        *reinterpret_cast<Unaligned*>(panel + k * wide + j) = read<Real>(row + j);
      }
      for (int j = whole_columns; j < columns; ++j) {
        panel[k * wide + j] = static_cast<Real>(row[j]);
      }
    }
    return;
  }
  const int whole_terms = K / lanes * lanes;
  for (int j = 0; j < whole_columns; j += lanes) {
    for (int k = 0; k < whole_terms; k += lanes) {
      transpose_square<Real>(b.data + j * b.column + k, b.column, panel + k * wide + j, wide);
    }
  }
  for (int j = 0; j < columns; ++j) {
    for (int k = j < whole_columns ? whole_terms : 0; k < K; ++k) {
      panel[k * wide + j] = static_cast<Real>(b.data[j * b.column + k]);
    }
  }
}

// Rows of the result in blocks that differ by at most one row.
struct RowBlocks {
  int rows, count;

  explicit RowBlocks(int M) : rows(M), count((M + register_rows - 1) / register_rows) {}
  int begin(int block) const { return int(std::int64_t(rows) * block / count); }
};

// A panel of columns of c: all rows with terms [0, K).
template <class Real, int width, bool turned, class T>
void multiply_panel(int M, int columns, int K, Real scale, const Strided<Real>& a,
                    const Strided<T>& b, Real* c, std::int64_t stride, Real* memory) {
  constexpr int wide = width * Lanes<Real>::count;
  const bool whole = columns == wide;
  const bool far = b.row * std::int64_t(sizeof(T)) >= far_bytes;
  const Real* panel = memory;
  std::int64_t step = wide;
  if (!std::is_same_v<T, Real> || b.column != 1 || !whole || (far && M >= packing_rows)) {
    pack<Real, width>(K, columns, b, memory);
  } else if constexpr (std::is_same_v<T, Real>) {
    panel = b.data;
    step = b.row;
  }
  const std::int64_t stride_a = turned ? a.column : a.row;
  const RowBlocks blocks(M);
  for (int block = 0; block < blocks.count; ++block) {
    const int begin = blocks.begin(block), rows = blocks.begin(block + 1) - begin;
    const auto multiply = block_of<Real, width, turned>(rows);
    const Real* const left = a.data + begin * a.row;
    Real* const to = c + begin * stride;
    if (whole) {
      multiply(K, scale, left, stride_a, panel, step, to, stride);
      continue;
    }
    Real edge[register_rows * wide];
    for (int i = 0; i < rows; ++i) {
      std::copy_n(to + i * stride, columns, edge + i * wide);
    }
    multiply(K, scale, left, stride_a, panel, step, edge, wide);
    for (int i = 0; i < rows; ++i) {
      std::copy_n(edge + i * wide, columns, to + i * stride);
    }
  }
}

template <class Real, bool turned, class T>
void multiply(int M, int N, int K, Real scale, const Strided<Real>& a, const Strided<T>& b, Real* c,
              std::int64_t stride) {
  constexpr int lanes = Lanes<Real>::count, wide = vectors * lanes;
  alignas(64) Real memory[block_terms * wide];
  for (int k = 0; k < K; k += block_terms) {
    const int terms = std::min(block_terms, K - k);
    const Strided<Real> left{a.data + k * a.column, a.row, a.column};
    for (int j = 0; j < N; j += wide) {
      const int columns = std::min(wide, N - j);
      const Strided<T> right{b.data + k * b.row + j * b.column, b.row, b.column};
      if (columns > lanes) {
        multiply_panel<Real, vectors, turned>(M, columns, terms, scale, left, right, c + j, stride,
                                              memory);
      } else {
        multiply_panel<Real, 1, turned>(M, columns, terms, scale, left, right, c + j, stride,
                                        memory);
      }
    }
  }
}

}  // namespace

template <class Real, class T>
void multiply_add_on_cpu(int M, int N, int K, Real scale, const Strided<Real>& a,
                         const Strided<T>& b, Real* c, std::int64_t stride) {
  if (a.column == 1) {
    multiply<Real, false>(M, N, K, scale, a, b, c, stride);
  } else {
    multiply<Real, true>(M, N, K, scale, a, b, c, stride);
  }
}

template <class Real>
void transpose_on_cpu(int rows, int columns, const Real* from, std::int64_t from_stride, Real* to,
                      std::int64_t stride) {
  constexpr int lanes = Lanes<Real>::count;
  const int whole_rows = rows / lanes * lanes, whole_columns = columns / lanes * lanes;
  for (int i = 0; i < whole_rows; i += lanes) {
    for (int j = 0; j < whole_columns; j += lanes) {
      transpose_square<Real>(from + j * from_stride + i, from_stride, to + i * stride + j,
                             static_cast<int>(stride));
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = i < whole_rows ? whole_columns : 0; j < columns; ++j) {
      to[i * stride + j] = from[j * from_stride + i];
    }
  }
}

template void transpose_on_cpu<float>(int, int, const float*, std::int64_t, float*, std::int64_t);
template void transpose_on_cpu<double>(int, int, const double*, std::int64_t, double*,
                                       std::int64_t);

#define QNEXT_INSTANTIATE(Real, T)                                                      \
  template void multiply_add_on_cpu<Real, T>(int, int, int, Real, const Strided<Real>&, \
                                             const Strided<T>&, Real*, std::int64_t);
QNEXT_INSTANTIATE(double, double)
QNEXT_INSTANTIATE(float, float)
QNEXT_INSTANTIATE(float, bf16)
#undef QNEXT_INSTANTIATE

}  // namespace qnext::tile
