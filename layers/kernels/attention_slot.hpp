// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "layers/kernels/attention_tiles.hpp"

/// The memory of one team in each of the three walks.
namespace qnext::attention {

/// Partial results of split keys: so many tokens times splits at most. It does not depend on the
/// number of threads.
inline constexpr int split_rows = 64;

/// Forward: a team owns query rows and visits keys of as many key heads as it takes together.
template <class Real>
struct ForwardSlot {
  Tile<Real> q;       // (W, rows)     transposed and scaled
  Tile<Real> out;     // (rows, W)
  Tile<Real> k;       // (visited, groups W)
  Tile<Real> v;       // (visited, groups W)
  Tile<Real> scores;  // (visited, rows)
  Real* maximum;      // (rows)  running, of the scores
  Real* highest;      // (rows)  the same with this block
  Real* sum;          // (rows)  of exp(score - maximum)
  Real* correction;   // (rows)

  KOKKOS_INLINE_FUNCTION ForwardSlot(TileSpace<Real>& space, const Geometry& n, int groups)
      : q(space.take(n.W, n.rows_in(n.own))),
        out(space.take(n.rows_in(n.own), n.W)),
        k(space.take(n.visited, groups * n.W)),
        v(space.take(n.visited, groups * n.W)),
        scores(space.take(n.visited, n.rows_in(n.own))),
        maximum(space.take_row(n.rows_in(n.own))),
        highest(space.take_row(n.rows_in(n.own))),
        sum(space.take_row(n.rows_in(n.own))),
        correction(space.take_row(n.rows_in(n.own))) {}
};

/// The gradient of q: a team owns query rows and visits keys.
template <class Real>
struct QuerySlot {
  Tile<Real> q;        // (W, rows)     transposed and scaled
  Tile<Real> dout;     // (W, rows)     transposed
  Tile<Real> dq;       // (rows, W)
  Tile<Real> k;        // (visited, W)
  Tile<Real> v;        // (visited, W)
  Tile<Real> weights;  // (visited, rows)
  Tile<Real> dscores;  // (visited, rows)
  Real* lse;           // (rows)
  Real* delta;         // (rows)

  KOKKOS_INLINE_FUNCTION QuerySlot(TileSpace<Real>& space, const Geometry& n)
      : q(space.take(n.W, n.rows_in(n.own))),
        dout(space.take(n.W, n.rows_in(n.own))),
        dq(space.take(n.rows_in(n.own), n.W)),
        k(space.take(n.visited, n.W)),
        v(space.take(n.visited, n.W)),
        weights(space.take(n.visited, n.rows_in(n.own))),
        dscores(space.take(n.visited, n.rows_in(n.own))),
        lse(space.take_row(n.rows_in(n.own))),
        delta(space.take_row(n.rows_in(n.own))) {}
};

/// The gradients of k and v: a team owns keys and visits query rows.
template <class Real>
struct KeySlot {
  Tile<Real> k;        // (W, own)       transposed
  Tile<Real> v;        // (W, own)       transposed
  Tile<Real> dk;       // (own, W)
  Tile<Real> dv;       // (own, W)
  Tile<Real> q;        // (rows, W)      scaled
  Tile<Real> dout;     // (rows, W)
  Tile<Real> weights;  // (rows, own)
  Tile<Real> dscores;  // (rows, own)

  KOKKOS_INLINE_FUNCTION KeySlot(TileSpace<Real>& space, const Geometry& n)
      : k(space.take(n.W, n.own)),
        v(space.take(n.W, n.own)),
        dk(space.take(n.own, n.W)),
        dv(space.take(n.own, n.W)),
        q(space.take(n.rows_in(n.visited), n.W)),
        dout(space.take(n.rows_in(n.visited), n.W)),
        weights(space.take(n.rows_in(n.visited), n.own)),
        dscores(space.take(n.rows_in(n.visited), n.own)) {}
};

template <class Storage>
Geometry geometry_of(const AttentionInput<Storage>& in, const AttentionTiles& tiles) {
  return {in.q.extent_int(1), in.k.extent_int(1), in.q.extent_int(2), tiles.own, tiles.visited};
}

/// Sets the counter of taken work to zero.
void reset(const Exec& exec, const Tensor<int, 1>& next);

}  // namespace qnext::attention
