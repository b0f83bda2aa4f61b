// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/tile_product.hpp"
#include "core/types.hpp"

#include <cstdint>
#include <type_traits>

namespace qnext::tile {

/// A small row-major matrix in the scratch memory of one team.
template <class Real>
struct Tile {
  Real* data;
  int rows;
  int columns;
  int stride;  // elements from one row to the next

  KOKKOS_FUNCTION Real& operator()(int i, int j) const { return data[i * stride + j]; }

  KOKKOS_FUNCTION Tile block(int row, int column, int block_rows, int block_columns) const {
    return {data + row * stride + column, block_rows, block_columns, stride};
  }

  template <class Const>
  requires std::is_same_v<Const, const Real> KOKKOS_FUNCTION operator Tile<Const>() const {
    return {data, rows, columns, stride};
  }
};

enum class Form { plain, transposed };

namespace detail {

/// f(i, j) for all elements, in any order: the lanes of a team share them on a GPU, the one thread
/// of a team walks them along rows on a CPU.
template <class Team, class F>
KOKKOS_FORCEINLINE_FUNCTION void for_each(const Team& team, int rows, int columns, const F& f) {
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
  Kokkos::parallel_for(Kokkos::TeamVectorRange(team, rows * columns), [&](const int element) {
    const int i = element / columns;
    f(i, element - i * columns);
  });
  team.team_barrier();
#else
  (void)team;
  for (int i = 0; i < rows; ++i) {
#pragma GCC ivdep
    for (int j = 0; j < columns; ++j) {
      f(i, j);
    }
  }
#endif
}

}  // namespace detail

/// All of these are collective: every thread of the team calls, and when a call returns all of
/// them see its result. On a CPU a team has one thread.

template <class Team, class Real>
KOKKOS_FUNCTION void fill(const Team& team, const Tile<Real>& tile,
                          const std::type_identity_t<Real>& value) {
  detail::for_each(team, tile.rows, tile.columns,
                   [&](const int i, const int j) { tile(i, j) = value; });
}
template <class Team, class Real>
KOKKOS_FUNCTION void fill(const Team& team, const Real& value, const Tile<Real>& tile) {
  fill(team, tile, value);
}

/// Rows that lie `stride` elements apart in memory, widened. Rows from `valid_rows` on become zero
/// and are not read.
template <class Team, class T, class Real>
KOKKOS_FUNCTION void load(const Team& team, const T* source, std::int64_t stride,
                          const Tile<Real>& tile, int valid_rows) {
  detail::for_each(team, tile.rows, tile.columns, [&](const int i, const int j) {
    tile(i, j) = i < valid_rows ? static_cast<Real>(source[i * stride + j]) : Real(0);
  });
}
template <class Team, class T, class Real>
KOKKOS_FUNCTION void load(const Team& team, const T* source, std::int64_t stride,
                          const Tile<Real>& tile) {
  load(team, source, stride, tile, tile.rows);
}

/// The inverse of load: rounds each element once.
template <class Team, class T, class Real>
KOKKOS_FUNCTION void store(const Team& team, const Tile<Real>& tile, T* destination,
                           std::int64_t stride) {
  detail::for_each(team, tile.rows, tile.columns, [&](const int i, const int j) {
    destination[i * stride + j] = static_cast<T>(tile(i, j));
  });
}

/// to = from^T
template <class Team, class Real>
KOKKOS_FUNCTION void transpose(const Team& team, const std::type_identity_t<Tile<const Real>>& from,
                               const Tile<Real>& to) {
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
  detail::for_each(team, to.rows, to.columns,
                   [&](const int i, const int j) { to(i, j) = from(j, i); });
#else
  (void)team;
  transpose_on_cpu<Real>(to.rows, to.columns, from.data, from.stride, to.data, to.stride);
#endif
}

/// c += scale op(a) op(b), with the extents of c and op(a).
template <Form FormA, Form FormB, class Team, class Real>
KOKKOS_FUNCTION void multiply_add(const Team& team, std::type_identity_t<Real> scale,
                                  const std::type_identity_t<Tile<const Real>>& a,
                                  const std::type_identity_t<Tile<const Real>>& b,
                                  const Tile<Real>& c) {
  constexpr bool plain_a = FormA == Form::plain, plain_b = FormB == Form::plain;
  const int terms = plain_a ? a.columns : a.rows;
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
  detail::for_each(team, c.rows, c.columns, [&](const int i, const int j) {
    Real sum = 0;
    for (int k = 0; k < terms; ++k) {
      sum += (plain_a ? a(i, k) : a(k, i)) * (plain_b ? b(k, j) : b(j, k));
    }
    c(i, j) += scale * sum;
  });
#else
  (void)team;
  const Strided<Real> left{a.data, plain_a ? a.stride : 1, plain_a ? 1 : a.stride};
  const Strided<Real> right{b.data, plain_b ? b.stride : 1, plain_b ? 1 : b.stride};
  multiply_add_on_cpu<Real, Real>(c.rows, c.columns, terms, scale, left, right, c.data, c.stride);
#endif
}

}  // namespace qnext::tile
