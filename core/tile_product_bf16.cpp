// SPDX-License-Identifier: Apache-2.0
#include "core/tile_product_bf16.hpp"

#include "core/matmul_onednn.hpp"
#include "core/require.hpp"
#include "core/tile_amx.hpp"
#include "core/tile_packing.hpp"
#include "core/vector.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace qnext::tile {
namespace {

using Vector = Lanes<float>::Vector;
using Unaligned = Lanes<float>::Unaligned;

inline constexpr int lanes = Lanes<float>::count;
inline constexpr int vectors_of_panel = square_lanes / lanes;

// Sums of register_rows x 2 panels stay in registers, beside a pair of a and the vectors of b.
inline constexpr int register_rows = vector_registers == 32 && lanes == square_lanes ? 12 : 2;

// sum += a_k b_k + a_{k+1} b_{k+1} for a pair of terms of one row and of the columns of a vector.
struct Widened {
  static inline __attribute__((always_inline)) void add(Vector& sum, std::uint32_t left,
                                                        const bf16* right) {
    typedef std::uint32_t Words __attribute__((vector_size(vector_bytes)));
    typedef std::uint32_t Stored __attribute__((vector_size(vector_bytes), aligned(2), may_alias));
    const Words words = *reinterpret_cast<const Stored*>(right);
    const auto widened = [](std::uint32_t word) {
      float value;
      std::memcpy(&value, &word, sizeof value);
      return value;
    };
    sum += widened(left << 16) * reinterpret_cast<Vector>(words << 16);
    sum += widened(left & 0xffff0000u) * reinterpret_cast<Vector>(words & 0xffff0000u);
  }
};

#if defined(__AVX512BF16__)
struct Dot {
  static inline __attribute__((always_inline)) void add(Vector& sum, std::uint32_t left,
                                                        const bf16* right) {
    sum = reinterpret_cast<Vector>(_mm512_dpbf16_ps(
        reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(_mm512_set1_epi32(int(left))),
        reinterpret_cast<__m512bh>(_mm512_loadu_si512(right))));
  }
};
#else
using Dot = Widened;
#endif

// c (rows, 16 panels) = or += a b.
template <class Add, int rows, int panels>
void register_block(int K, const bf16* __restrict a, std::int64_t stride_a,
                    const bf16* __restrict b, std::int64_t panel, float* c, std::int64_t stride,
                    bool add) {
  constexpr int width = panels * vectors_of_panel;
  Vector sum[rows][width];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < width; ++v) {
      sum[i][v] =
          add ? Vector(*reinterpret_cast<const Unaligned*>(c + i * stride + v * lanes)) : Vector{};
    }
  }
  for (int k = 0; k < K; k += 2) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      std::uint32_t left;
      std::memcpy(&left, a + i * stride_a + k, sizeof left);
#pragma GCC unroll 8
      for (int v = 0; v < width; ++v) {
        const bf16* const right =
            b + v / vectors_of_panel * panel + k * square_lanes + v % vectors_of_panel * 2 * lanes;
        Add::add(sum[i][v], left, right);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < width; ++v) {
      *reinterpret_cast<Unaligned*>(c + i * stride + v * lanes) = sum[i][v];
    }
  }
}

using Block = void (*)(int, const bf16*, std::int64_t, const bf16*, std::int64_t, float*,
                       std::int64_t, bool);

// The register blocks of 1 ... register_rows rows.
template <class Add, int panels>
Block block_of(int rows) {
  static constexpr auto blocks = []<int... i>(std::integer_sequence<int, i...>) {
    return std::array<Block, sizeof...(i)>{register_block<Add, i + 1, panels>...};
  }
  (std::make_integer_sequence<int, register_rows>());
  return blocks[rows - 1];
}

template <class Add>
void multiply_by_vectors(int M, int N, int K, const bf16* a, std::int64_t stride_a, const bf16* b,
                         int depth, float* c, std::int64_t stride, bool add) {
  const std::int64_t panel = std::int64_t(depth) * square_lanes;
  const int blocks = (M + register_rows - 1) / register_rows, terms = (K + 1) / 2 * 2;
  for (int j = 0; j < N; j += 2 * square_lanes) {
    const int columns = std::min(2 * square_lanes, N - j);
    const int panels = columns > square_lanes ? 2 : 1, wide = panels * square_lanes;
    const bf16* const right = b + j / square_lanes * panel;
    for (int block = 0; block < blocks; ++block) {
      const int i = int(std::int64_t(M) * block / blocks);
      const int rows = int(std::int64_t(M) * (block + 1) / blocks) - i;
      const auto multiply = panels == 2 ? block_of<Add, 2>(rows) : block_of<Add, 1>(rows);
      float* const to = c + i * stride + j;
      if (columns == wide) {
        multiply(terms, a + i * stride_a, stride_a, right, panel, to, stride, add);
        continue;
      }
      float edge[register_rows * 2 * square_lanes] = {};
      for (int row = 0; add && row < rows; ++row) {
        std::copy_n(to + row * stride, columns, edge + row * wide);
      }
      multiply(terms, a + i * stride_a, stride_a, right, panel, edge, wide, add);
      for (int row = 0; row < rows; ++row) {
        std::copy_n(edge + row * wide, columns, to + row * stride);
      }
    }
  }
}

}  // namespace

bool available(Unit unit) {
#if defined(__AVX512BF16__)
  constexpr bool dot = true;
#else
  constexpr bool dot = false;
#endif
  return unit == Unit::amx ? amx::available() : unit == Unit::dot ? dot : true;
}

Unit usual_unit() {
  static const Unit unit = [] {
    const auto allowed = onednn::allowed();
    return allowed.amx && available(Unit::amx)    ? Unit::amx
           : allowed.bf16 && available(Unit::dot) ? Unit::dot
                                                  : Unit::widened;
  }();
  return unit;
}

void multiply_bf16_on_cpu(Unit unit, int M, int N, int K, const bf16* a, std::int64_t stride_a,
                          const bf16* b, int depth, float* c, std::int64_t stride, bool add) {
  require(available(unit), "bf16 product: this build or processor lacks the unit asked for");
  if (unit == Unit::amx) {
    amx::multiply(M, N, K, a, stride_a, b, depth, c, stride, add);
  } else if (unit == Unit::dot) {
    multiply_by_vectors<Dot>(M, N, K, a, stride_a, b, depth, c, stride, add);
  } else {
    multiply_by_vectors<Widened>(M, N, K, a, stride_a, b, depth, c, stride, add);
  }
}

}  // namespace qnext::tile
