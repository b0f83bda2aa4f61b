// SPDX-License-Identifier: Apache-2.0
#include "core/matmul_cpu.hpp"

#include "core/bf16.hpp"
#include "core/matmul_onednn.hpp"
#include "core/team.hpp"
#include "core/tile_product.hpp"

#include <algorithm>
#include <type_traits>

namespace qnext {
namespace {

using tile::Strided;

// A block of C of that size stays in the second cache, beside the part of A that one step along the
// sum reads. Products with fewer blocks than two for each thread get narrower ones.
template <class In>
struct Blocking {
  static constexpr int rows = 192, columns = 512, terms = 256;
};
// oneDNN sums up to 512 terms in one way whatever the other extents are; beyond that its order
// depends on the number of rows. Rows and terms are padded to multiples of 32, the extent of a tile
// of AMX, so that the number of primitives stays small whatever the groups have.
template <>
struct Blocking<bf16> {
  static constexpr int rows = 256, columns = 512, terms = 512;
};
inline constexpr int least_columns = 64;
inline constexpr int padding = 32;

constexpr int padded(int extent) {
  return (extent + padding - 1) / padding * padding;
}

// Products of several matrices: number e has the rows [row(e), row(e + 1)) of op(A) and C, or sums
// over those rows.
struct Range {
  const int* offset;  // null: one product of all `rows`
  int rows;

  int begin(int e) const { return offset == nullptr ? 0 : offset[e]; }
  int end(int e) const { return offset == nullptr ? rows : offset[e + 1]; }
};

// One thread makes one block of C, with oneDNN where it has bf16 products for this CPU and with our
// tile product otherwise.
template <class In, class Out>
struct Product {
  using Real = Accum<In>;
  using Block = Blocking<In>;

  bool gradient;  // the groups are ranges of the sum and not of the rows of C
  int groups;
  Range range;
  int rows, columns, terms;  // of C in a gradient, otherwise `terms` of the sum
  Strided<In> a;             // (rows, terms)
  Strided<In> b;             // (terms, columns)
  std::int64_t matrix_b;     // elements from one matrix of B to the next
  Out* c;                    // (rows, columns)
  std::int64_t matrix_c;
  bool add;

  int width = Block::columns;

  void launch(const char* label, const Exec& exec) {
    const int row_blocks = count_row_blocks();
    if (row_blocks == 0 || columns == 0) {
      return;
    }
    while (width > least_columns && row_blocks * column_blocks() < 2 * exec.concurrency()) {
      width /= 2;
    }
    const std::size_t bytes = Scratch<Real, 1>::shmem_size(scratch_elements());
    Kokkos::parallel_for(
        label,
        row_policy(exec, row_blocks * column_blocks()).set_scratch_size(1, Kokkos::PerTeam(bytes)),
        *this);
  }

  int column_blocks() const { return (columns + width - 1) / width; }

  // The block of C and one of A; for oneDNN also one of B, all of bf16 but the first.
  int scratch_elements() const {
    return Block::rows * (Block::terms + width) + Block::terms * width / 2;
  }

  static int blocks_of(int rows) { return (rows + Block::rows - 1) / Block::rows; }

  int count_row_blocks() const {
    if (gradient) {
      return groups * blocks_of(rows);
    }
    int blocks = 0;
    for (int e = 0; e < groups; ++e) {
      blocks += blocks_of(range.end(e) - range.begin(e));
    }
    return blocks;
  }

  void operator()(const RowTeam& team) const {
    const int column = team.league_rank() % column_blocks() * width;
    int block = team.league_rank() / column_blocks();
    if (gradient) {
      const int e = block / blocks_of(rows);
      block -= e * blocks_of(rows);
      multiply(team, e, block * Block::rows, rows, column, range.begin(e), range.end(e));
      return;
    }
    int e = 0;
    for (; block >= blocks_of(range.end(e) - range.begin(e)); ++e) {
      block -= blocks_of(range.end(e) - range.begin(e));
    }
    multiply(team, e, range.begin(e) + block * Block::rows, range.end(e), column, 0, terms);
  }

  // The block of C of matrix e that starts at (row, column), over the terms [first, last).
  void multiply(const RowTeam& team, int e, int row, int row_end, int column, int first,
                int last) const {
    if (gradient && first == last) {
      return;
    }
    const int M = std::min(Block::rows, row_end - row), N = std::min(width, columns - column);
    const Scratch<Real, 1> memory(team.team_scratch(1), scratch_elements());
    Out* const to = c + e * matrix_c + std::int64_t(row) * columns + column;
    const Strided<In> right{b.data + e * matrix_b + column * b.column, b.row, b.column};
    if constexpr (std::is_same_v<In, bf16>) {
      if (first < last && onednn::available()) {
        return multiply_with_onednn(row, M, N, first, last, right, to, memory.data());
      }
    }
    if constexpr (std::is_same_v<In, float>) {
      if (range.offset == nullptr && first < last && library_is_faster(M, N)) {
        return onednn::multiply(
            M, N, last - first, {a.data + row * a.row + first * a.column, a.row, a.column},
            {right.data + first * right.row, right.row, right.column}, to, columns, add);
      }
    }
    multiply_with_tiles(row, M, N, first, last, right, to, memory.data());
  }

  // oneDNN's float product of one block against ours, GFLOP/s of a core of Sapphire Rapids at
  // K = 512 (our peak is 200): A B 195 and 175, A^T B 180 and 160, A B^T 170 and 175. Its rows
  // depend on their number, so groups do not use it.
  bool library_is_faster(int M, int N) const { return b.column == 1 && M >= 16 && N >= 16; }

  // Where the types allow it reads A and B and adds to C in place; otherwise A is widened, and C
  // rounded, by way of the scratch memory. B is widened when the tile product copies its panels.
  void multiply_with_tiles(int row, int M, int N, int first, int last, const Strided<In>& right,
                           Out* to, Real* memory) const {
    constexpr bool in_place = std::is_same_v<Out, Real>;
    Real* sum = memory + Block::rows * Block::terms;
    std::int64_t stride = width;
    if constexpr (in_place) {
      sum = to;
      stride = columns;
    }
    if (!add) {
      for (int i = 0; i < M; ++i) {
        std::fill_n(sum + i * stride, N, Real(0));
      }
    } else if (!in_place) {
      copy(M, N, to, columns, sum, stride);
    }
    for (int k = first; k < last; k += Block::terms) {
      const int K = std::min(Block::terms, last - k);
      tile::multiply_add_on_cpu<Real, In>(M, N, K, Real(1), left(row, k, M, K, memory),
                                          {right.data + k * right.row, right.row, right.column},
                                          sum, stride);
    }
    if (!in_place) {
      copy(M, N, sum, stride, to, columns);
    }
  }

  // A and B are read in place unless they have to be padded, C is written in place unless it has to
  // be padded or collects several steps of a bf16 result.
  void multiply_with_onednn(int row, int M, int N, int first, int last, const Strided<In>& right,
                            Out* to, Real* memory) const {
    const int padded_rows = padded(M);
    const bool in_place =
        M == padded_rows && (std::is_same_v<Out, Real> || last - first <= Block::terms);
    Real* const sum = memory;
    bf16* const memory_a = reinterpret_cast<bf16*>(sum + Block::rows * width);
    bf16* const memory_b = memory_a + Block::rows * Block::terms;
    if (!in_place && add) {
      copy(M, N, to, columns, sum, width);
    }
    for (int k = first; k < last; k += Block::terms) {
      const int K = std::min(Block::terms, last - k), padded_terms = padded(K);
      Strided<In> block_a{a.data + row * a.row + k * a.column, a.row, a.column};
      Strided<In> block_b{right.data + k * right.row, right.row, right.column};
      if (K != padded_terms || row + padded_rows > rows) {
        block_a = pad(block_a, M, K, padded_rows, padded_terms, memory_a);
      }
      if (K != padded_terms) {
        block_b = pad(block_b, K, N, padded_terms, N, memory_b);
      }
      const bool more = add || k > first;
      if (in_place) {
        onednn::multiply(padded_rows, N, padded_terms, block_a, block_b, data_type_of<Out>(), to,
                         columns, more);
      } else {
        onednn::multiply(padded_rows, N, padded_terms, block_a, block_b, data_type_of<Real>(), sum,
                         width, more);
      }
    }
    if (!in_place) {
      copy(M, N, sum, width, to, columns);
    }
  }

  template <class From, class To>
  static void copy(int M, int N, const From* from, std::int64_t from_stride, To* to,
                   std::int64_t to_stride) {
    for (int i = 0; i < M; ++i) {
      for (int j = 0; j < N; ++j) {
        to[i * to_stride + j] = To(static_cast<Real>(from[i * from_stride + j]));
      }
    }
  }

  // An operand of (M, N) in memory that lies the same way and has zeros behind its extents.
  static Strided<In> pad(const Strided<In>& from, int M, int N, int padded_M, int padded_N,
                         In* memory) {
    const bool plain = from.column == 1;
    const int outer = plain ? M : N, inner = plain ? N : M;
    const int padded_outer = plain ? padded_M : padded_N, stride = plain ? padded_N : padded_M;
    std::fill_n(memory, std::int64_t(padded_outer) * stride, In(0.0f));
    for (int i = 0; i < outer; ++i) {
      std::copy_n(from.data + i * (plain ? from.row : from.column), inner,
                  memory + std::int64_t(i) * stride);
    }
    return {memory, plain ? stride : 1, plain ? 1 : stride};
  }

  // (M, K) of op(A) at (row, k): in place, or copied because it has another type or lies the other
  // way round, where neighbouring terms would share sets of the cache.
  Strided<Real> left(int row, int k, int M, int K, Real* memory) const {
    const In* const from = a.data + row * a.row + k * a.column;
    const bool plain = a.column == 1;
    if constexpr (std::is_same_v<In, Real>) {
      if (plain) {
        return {from, a.row, a.column};
      }
    }
    const int outer = plain ? M : K, inner = plain ? K : M;
    const std::int64_t step = plain ? a.row : a.column;
    copy(outer, inner, from, step, memory, inner);
    return {memory, plain ? inner : 1, plain ? 1 : inner};
  }
};

template <class T, int Rank>
Strided<T> operand(Op op, const Tensor<const T, Rank>& m) {
  const auto stride = static_cast<std::int64_t>(m.extent(Rank - 1));
  return op == Op::none ? Strided<T>{m.data(), stride, 1} : Strided<T>{m.data(), 1, stride};
}

}  // namespace

template <class In, class Out>
void matmul_cpu(const Exec& exec, Op op_a, const Tensor<const In, 2>& a, Op op_b,
                const Tensor<const In, 2>& b, const Tensor<Out, 2>& c, Write write) {
  const int rows = int(c.extent(0)), columns = int(c.extent(1));
  const int terms = int(a.extent(op_a == Op::none ? 1 : 0));
  Product<In, Out>{.gradient = false,
                   .groups = 1,
                   .range = {nullptr, rows},
                   .rows = rows,
                   .columns = columns,
                   .terms = terms,
                   .a = operand<In, 2>(op_a, a),
                   .b = operand<In, 2>(op_b, b),
                   .matrix_b = 0,
                   .c = c.data(),
                   .matrix_c = 0,
                   .add = write == Write::add}
      .launch("matmul::product", exec);
}

template <class In, class Out>
void matmul_grouped_cpu(const Exec& exec, const Tensor<const int, 1>& offset,
                        const Tensor<const In, 2>& a, Op op_b, const Tensor<const In, 3>& b,
                        const Tensor<Out, 2>& c, Write write) {
  Product<In, Out>{.gradient = false,
                   .groups = int(b.extent(0)),
                   .range = {offset.data(), 0},
                   .rows = int(c.extent(0)),
                   .columns = int(c.extent(1)),
                   .terms = int(a.extent(1)),
                   .a = operand<In, 2>(Op::none, a),
                   .b = operand<In, 3>(op_b, b),
                   .matrix_b = std::int64_t(b.extent(1)) * std::int64_t(b.extent(2)),
                   .c = c.data(),
                   .matrix_c = 0,
                   .add = write == Write::add}
      .launch("matmul::grouped", exec);
}

template <class In, class Out>
void matmul_grouped_gradient_cpu(const Exec& exec, const Tensor<const int, 1>& offset,
                                 const Tensor<const In, 2>& a, const Tensor<const In, 2>& c,
                                 const Tensor<Out, 3>& b) {
  Product<In, Out>{.gradient = true,
                   .groups = int(b.extent(0)),
                   .range = {offset.data(), 0},
                   .rows = int(b.extent(1)),
                   .columns = int(b.extent(2)),
                   .terms = 0,
                   .a = operand<In, 2>(Op::transpose, a),
                   .b = operand<In, 2>(Op::none, c),
                   .matrix_b = 0,
                   .c = b.data(),
                   .matrix_c = std::int64_t(b.extent(1)) * std::int64_t(b.extent(2)),
                   .add = true}
      .launch("matmul::grouped_gradient", exec);
}

std::int64_t matmul_cpu_workspace_bytes(DataType type) {
  using Block = Blocking<bf16>;
  return type == DataType::bf16 && onednn::available()
             ? Exec().concurrency() *
                   onednn::scratch_bytes_of(Block::rows, Block::columns, Block::terms)
             : 0;
}

#define QNEXT_INSTANTIATE(In, Out)                                                             \
  template void matmul_cpu<In, Out>(const Exec&, Op, const Tensor<const In, 2>&, Op,           \
                                    const Tensor<const In, 2>&, const Tensor<Out, 2>&, Write); \
  template void matmul_grouped_cpu<In, Out>(                                                   \
      const Exec&, const Tensor<const int, 1>&, const Tensor<const In, 2>&, Op,                \
      const Tensor<const In, 3>&, const Tensor<Out, 2>&, Write);                               \
  template void matmul_grouped_gradient_cpu<In, Out>(                                          \
      const Exec&, const Tensor<const int, 1>&, const Tensor<const In, 2>&,                    \
      const Tensor<const In, 2>&, const Tensor<Out, 3>&);
QNEXT_INSTANTIATE(double, double)
QNEXT_INSTANTIATE(float, float)
QNEXT_INSTANTIATE(bf16, bf16)
QNEXT_INSTANTIATE(bf16, float)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
