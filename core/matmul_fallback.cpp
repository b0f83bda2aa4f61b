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
      return block(0, rows, index * block_rows, 0);
    } else if constexpr (kind == Kind::grouped) {
      // Each group is cut from its own first row, so that no block spans two of them.
      for (int e = 0; e < groups; ++e) {
        const int blocks = (offset(e + 1) - offset(e) + block_rows - 1) / block_rows;
        if (index < blocks) {
          return block(offset(e), offset(e + 1), offset(e) + index * block_rows, e);
        }
        index -= blocks;
      }
      return Job{0, 0, 0, 0, 0};
    } else {
      const int blocks = (rows + block_rows - 1) / block_rows;
      const int e = index / blocks;
      Job job = block(0, rows, (index - e * blocks) * block_rows, e);
      job.terms_begin = offset(e);
      job.terms = offset(e + 1) - offset(e);
      return job;
    }
  }

  KOKKOS_FUNCTION Job block(int, int end, int row, int matrix) const {
    return {row, end - row < block_rows ? end - row : block_rows, 0, terms, matrix};
  }
};

// A team makes one block of C: it adds up the products of tiles of A and B in its scratch memory
// and writes the sum once.
template <class In, class Out, Kind kind, Form form_a, Form form_b>
struct Product {
  using Real = Accum<In>;

  Jobs<kind> jobs;
  const In* a;
  std::int64_t stride_a;
  const In* b;
  std::int64_t stride_b;
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

    const int level = scratch_level;  // taken by reference: device code has no file-scope variables
    const Scratch<Real, 1> memory(team.team_scratch(level), tile_elements);
    Real* const memory_a = memory.data() + block_rows * block_columns;
    Real* const memory_b = memory_a + block_rows * block_terms;
    const Tile<Real> sum{memory.data(), job.rows, width, block_columns};
    tile::fill(team, sum, Real(0));

    for (int begin = 0; begin < job.terms; begin += block_terms) {
      const int left = job.terms - begin;
      const int terms = left < block_terms ? left : block_terms;
      const std::int64_t k = job.terms_begin + begin;
      const auto tile_a = load<form_a>(team, memory_a, a, stride_a, job.row, k, job.rows, terms);
      const auto tile_b = load < form_b == Form::plain
                              ? Form::transposed
                              : Form::plain > (team, memory_b, b + job.matrix * matrix_b, stride_b,
                                               column, k, width, terms);
      tile::multiply_add<form_a, form_b>(team, Real(1), tile_a, tile_b, sum);
    }
    store(team, sum, c + job.matrix * matrix_c + std::int64_t(job.row) * columns + column);
  }

  // The tile of op(A) at (row, term), or of op(B)^T at (column, term), as it lies in memory.
  template <Form form>
  KOKKOS_FUNCTION static Tile<Real> load(const RowTeam& team, Real* memory, const In* source,
                                         std::int64_t stride, std::int64_t row, std::int64_t term,
                                         int rows, int terms) {
    const bool plain = form == Form::plain;
    const Tile<Real> tile{memory, plain ? rows : terms, plain ? terms : rows, plain ? terms : rows};
    tile::load(team, source + (plain ? row * stride + term : term * stride + row), stride, tile);
    return tile;
  }

  KOKKOS_FUNCTION void store(const RowTeam& team, const Tile<Real>& sum, Out* destination) const {
    if (add) {
      tile::detail::for_each(team, sum.rows, sum.columns, [&](const int i, const int j) {
        Out& element = destination[std::int64_t(i) * columns + j];
        element = Out(static_cast<Real>(element) + sum(i, j));
      });
    } else {
      tile::store(team, sum, destination, columns);
    }
  }
};

// Turns the forms, known at run time, into the types of the kernel.
template <class In, class Out, Kind kind, class... Members>
void launch(const char* label, const Exec& exec, Op op_a, Op op_b, Members... members) {
  const auto with = [&]<Form form_a, Form form_b>() {
    Product<In, Out, kind, form_a, form_b>{members...}.launch(label, exec);
  };
  if (op_a == Op::none) {
    op_b == Op::none ? with.template operator()<Form::plain, Form::plain>()
                     : with.template operator()<Form::plain, Form::transposed>();
  } else {
    op_b == Op::none ? with.template operator()<Form::transposed, Form::plain>()
                     : with.template operator()<Form::transposed, Form::transposed>();
  }
}

}  // namespace

template <class In, class Out>
void matmul_fallback(const Exec& exec, Op op_a, const Tensor<const In, 2>& a, Op op_b,
                     const Tensor<const In, 2>& b, const Tensor<Out, 2>& c, Write write) {
  const int rows = int(c.extent(0)), columns = int(c.extent(1));
  const int terms = int(op_a == Op::none ? a.extent(1) : a.extent(0));
  const Jobs<Kind::single> jobs{{}, 1, rows, terms};
  launch<In, Out, Kind::single>("matmul_fallback::product", exec, op_a, op_b, jobs, a.data(),
                                std::int64_t(a.extent(1)), b.data(), std::int64_t(b.extent(1)),
                                std::int64_t(0), c.data(), std::int64_t(0), columns,
                                write == Write::add);
}

template <class In, class Out>
void matmul_grouped_fallback(const Exec& exec, const Tensor<const int, 1>& offset,
                             const Tensor<const In, 2>& a, Op op_b, const Tensor<const In, 3>& b,
                             const Tensor<Out, 2>& c, Write write) {
  const int rows = int(c.extent(0)), columns = int(c.extent(1)), terms = int(a.extent(1));
  const Jobs<Kind::grouped> jobs{offset, int(b.extent(0)), rows, terms};
  launch<In, Out, Kind::grouped>("matmul_fallback::grouped", exec, Op::none, op_b, jobs, a.data(),
                                 std::int64_t(terms), b.data(), std::int64_t(b.extent(2)),
                                 std::int64_t(b.extent(1)) * std::int64_t(b.extent(2)), c.data(),
                                 std::int64_t(0), columns, write == Write::add);
}

template <class In, class Out>
void matmul_grouped_gradient_fallback(const Exec& exec, const Tensor<const int, 1>& offset,
                                      const Tensor<const In, 2>& a, const Tensor<const In, 2>& c,
                                      const Tensor<Out, 3>& b) {
  const int rows = int(a.extent(1)), columns = int(c.extent(1));
  const Jobs<Kind::gradient> jobs{offset, int(b.extent(0)), rows, 0};
  launch<In, Out, Kind::gradient>("matmul_fallback::grouped_gradient", exec, Op::transpose,
                                  Op::none, jobs, a.data(), std::int64_t(rows), c.data(),
                                  std::int64_t(columns), std::int64_t(0), b.data(),
                                  std::int64_t(rows) * columns, columns, true);
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
