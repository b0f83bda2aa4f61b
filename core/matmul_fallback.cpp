// SPDX-License-Identifier: Apache-2.0
#include "core/matmul_fallback.hpp"

#include "core/bf16.hpp"
#include "core/team.hpp"
#include "core/tile.hpp"

namespace qnext {
namespace {

using tile::Form;
using tile::Tile;

// A block of C and the steps along the sum that its tiles are loaded in. On a GPU the three tiles
// share the fast memory of a block of threads, on a CPU they fill a part of the second cache.
inline constexpr int block_rows = device_backend ? 32 : 96;
inline constexpr int block_columns = device_backend ? 32 : 128;
inline constexpr int block_terms = device_backend ? 32 : 256;
inline constexpr int scratch_level = device_backend ? 0 : 1;

// Rows of C that are one product: those of one group, or all of them.
struct Job {
  int row;          // the first row of the block in C and A
  int rows;         // of the block
  int terms_begin;  // along the sum, in A and B
  int terms;
  int matrix;  // of B, or of the result of a gradient
};

// Which block of C a team makes. `rows` are those of C (of one C in a gradient), `terms` those of
// the sum; offsets divide the rows of a grouped product and the terms of a gradient.
enum class Kind { single, grouped, gradient };

template <Kind kind>
struct Jobs {
  Tensor<const int, 1> offset;
  int groups;
  int rows;
  int terms;

  int count() const {
    const int blocks = (rows + block_rows - 1) / block_rows;
    return kind == Kind::single    ? blocks
           : kind == Kind::grouped ? blocks + groups
                                   : blocks * groups;
  }

  KOKKOS_FUNCTION Job operator()(int index) const {
    if constexpr (kind == Kind::single) {
      return block(rows, index * block_rows, 0);
    } else if constexpr (kind == Kind::grouped) {
      // Each group is cut from its own first row, so that no block spans two of them.
      for (int e = 0; e < groups; ++e) {
        const int blocks = (offset(e + 1) - offset(e) + block_rows - 1) / block_rows;
        if (index < blocks) {
          return block(offset(e + 1), offset(e) + index * block_rows, e);
        }
        index -= blocks;
      }
      return Job{0, 0, 0, 0, 0};
    } else {
      const int blocks = (rows + block_rows - 1) / block_rows;
      const int e = index / blocks;
      Job job = block(rows, (index - e * blocks) * block_rows, e);
      job.terms_begin = offset(e);
      job.terms = offset(e + 1) - offset(e);
      return job;
    }
  }

  KOKKOS_FUNCTION Job block(int end, int row, int matrix) const {
    return {row, end - row < block_rows ? end - row : block_rows, 0, terms, matrix};
  }
};

// A matrix as it is read: element (i, j) lies at data[i * row + j * column].
template <class In>
struct Operand {
  const In* data;
  std::int64_t row;
  std::int64_t column;
};

template <class In, int Rank>
Operand<In> operand(Op op, const Tensor<const In, Rank>& m) {
  const auto stride = static_cast<std::int64_t>(m.extent(Rank - 1));
  return op == Op::none ? Operand<In>{m.data(), stride, 1} : Operand<In>{m.data(), 1, stride};
}

// A team makes one block of C: it adds up the products of tiles of A and B in its scratch memory
// and writes the sum once.
template <class In, class Out, Kind kind>
struct Product {
  using Real = Accum<In>;

  Jobs<kind> jobs;
  Operand<In> a;
  Operand<In> b;
  std::int64_t matrix_b;  // elements from one matrix of B to the next
  Out* c;
  std::int64_t matrix_c;
  int columns;
  bool add;

  static constexpr int tile_elements =
      block_rows * block_columns + block_terms * (block_rows + block_columns);

  void launch(const char* label, const Exec& exec) const {
    const int column_blocks = (columns + block_columns - 1) / block_columns;
    const int teams = jobs.count() * column_blocks;
    if (teams == 0) {
      return;
    }
    const std::size_t bytes = Scratch<Real, 1>::shmem_size(tile_elements);
    Kokkos::parallel_for(
        label, row_policy(exec, teams).set_scratch_size(scratch_level, Kokkos::PerTeam(bytes)),
        *this);
  }

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int column_blocks = (columns + block_columns - 1) / block_columns;
    const Job job = jobs(team.league_rank() / column_blocks);
    if (job.rows <= 0) {
      return;
    }
    const int column = team.league_rank() % column_blocks * block_columns;
    const int width = columns - column < block_columns ? columns - column : block_columns;

    const Scratch<Real, 1> memory(team.team_scratch(int{scratch_level}), tile_elements);
    Real* const memory_a = memory.data() + block_rows * block_columns;
    Real* const memory_b = memory_a + block_rows * block_terms;
    const Tile<Real> sum{memory.data(), job.rows, width, block_columns};
    tile::fill(team, sum, Real(0));

    for (int begin = 0; begin < job.terms; begin += block_terms) {
      const int rest = job.terms - begin;
      const int terms = rest < block_terms ? rest : block_terms;
      const std::int64_t k = job.terms_begin + begin;
      const Tile<Real> tile_a{memory_a, job.rows, terms, terms};
      const Tile<Real> tile_b{memory_b, terms, width, width};
      load(team, a, a.data + job.row * a.row + k * a.column, tile_a);
      load(team, b, b.data + job.matrix * matrix_b + k * b.row + column * b.column, tile_b);
      tile::multiply_add<Form::plain, Form::plain>(team, Real(1), tile_a, tile_b, sum);
    }
    store(team, sum, c + job.matrix * matrix_c + std::int64_t(job.row) * columns + column);
  }

  KOKKOS_FUNCTION static void load(const RowTeam& team, const Operand<In>& from, const In* source,
                                   const Tile<Real>& tile) {
    tile::detail::for_each(team, tile.rows, tile.columns, [&](const int i, const int j) {
      tile(i, j) = static_cast<Real>(source[i * from.row + j * from.column]);
    });
  }

  KOKKOS_FUNCTION void store(const RowTeam& team, const Tile<Real>& sum, Out* destination) const {
    tile::detail::for_each(team, sum.rows, sum.columns, [&](const int i, const int j) {
      Out& element = destination[std::int64_t(i) * columns + j];
      element = Out(add ? static_cast<Real>(element) + sum(i, j) : sum(i, j));
    });
  }
};

}  // namespace

template <class In, class Out>
void matmul_fallback(const Exec& exec, Op op_a, const Tensor<const In, 2>& a, Op op_b,
                     const Tensor<const In, 2>& b, const Tensor<Out, 2>& c, Write write) {
  const int rows = int(c.extent(0)), columns = int(c.extent(1));
  const int terms = int(op_a == Op::none ? a.extent(1) : a.extent(0));
  Product<In, Out, Kind::single>{.jobs = {{}, 1, rows, terms},
                                 .a = operand<In, 2>(op_a, a),
                                 .b = operand<In, 2>(op_b, b),
                                 .matrix_b = 0,
                                 .c = c.data(),
                                 .matrix_c = 0,
                                 .columns = columns,
                                 .add = write == Write::add}
      .launch("matmul_fallback::product", exec);
}

template <class In, class Out>
void matmul_grouped_fallback(const Exec& exec, const Tensor<const int, 1>& offset,
                             const Tensor<const In, 2>& a, Op op_b, const Tensor<const In, 3>& b,
                             const Tensor<Out, 2>& c, Write write) {
  const int rows = int(c.extent(0)), columns = int(c.extent(1)), terms = int(a.extent(1));
  Product<In, Out, Kind::grouped>{.jobs = {offset, int(b.extent(0)), rows, terms},
                                  .a = operand<In, 2>(Op::none, a),
                                  .b = operand<In, 3>(op_b, b),
                                  .matrix_b = std::int64_t(b.extent(1)) * std::int64_t(b.extent(2)),
                                  .c = c.data(),
                                  .matrix_c = 0,
                                  .columns = columns,
                                  .add = write == Write::add}
      .launch("matmul_fallback::grouped", exec);
}

template <class In, class Out>
void matmul_grouped_gradient_fallback(const Exec& exec, const Tensor<const int, 1>& offset,
                                      const Tensor<const In, 2>& a, const Tensor<const In, 2>& c,
                                      const Tensor<Out, 3>& b) {
  const int rows = int(a.extent(1)), columns = int(c.extent(1));
  Product<In, Out, Kind::gradient>{.jobs = {offset, int(b.extent(0)), rows, 0},
                                   .a = operand<In, 2>(Op::transpose, a),
                                   .b = operand<In, 2>(Op::none, c),
                                   .matrix_b = 0,
                                   .c = b.data(),
                                   .matrix_c = std::int64_t(rows) * columns,
                                   .columns = columns,
                                   .add = true}
      .launch("matmul_fallback::grouped_gradient", exec);
}

#define QNEXT_INSTANTIATE(In, Out)                                                          \
  template void matmul_fallback<In, Out>(const Exec&, Op, const Tensor<const In, 2>&, Op,   \
                                         const Tensor<const In, 2>&, const Tensor<Out, 2>&, \
                                         Write);                                            \
  template void matmul_grouped_fallback<In, Out>(                                           \
      const Exec&, const Tensor<const int, 1>&, const Tensor<const In, 2>&, Op,             \
      const Tensor<const In, 3>&, const Tensor<Out, 2>&, Write);                            \
  template void matmul_grouped_gradient_fallback<In, Out>(                                  \
      const Exec&, const Tensor<const int, 1>&, const Tensor<const In, 2>&,                 \
      const Tensor<const In, 2>&, const Tensor<Out, 3>&);
QNEXT_INSTANTIATE(double, double)
QNEXT_INSTANTIATE(float, float)
QNEXT_INSTANTIATE(bf16, bf16)
QNEXT_INSTANTIATE(bf16, float)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
