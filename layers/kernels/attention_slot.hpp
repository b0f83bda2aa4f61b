// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "layers/kernels/attention_tiles.hpp"

/// The memory of one team in each of the three walks.
namespace qnext::attention {

/// Tokens whose keys are split over teams, and into how many parts. Parts are equally many whole
/// blocks of keys, their number a power of two: where the keys of a token are cut depends on
/// nothing but how many they are, so that its bits do not depend on what is decoded beside it.
inline constexpr int split_tokens = 64;
inline constexpr int splits_of_keys = device_backend ? 64 : 16;

KOKKOS_INLINE_FUNCTION int keys_of_split(int keys, int visited) {
  int part = visited;
  while (std::int64_t{part} * splits_of_keys < keys) {
    part *= 2;
  }
  return part;
}

/// Columns that a tile is padded by at most: to an odd number of lines of 16 (core/slot.hpp). Those
/// of each key head are padded by themselves.
inline constexpr int most_padding = 31;

/// Forward: a team owns query rows and visits keys of as many key heads as it takes together.
template <class Storage>
struct ForwardSlot {
  using Real = Accum<Storage>;

  Tile<Storage> q;                 // (rows, W)     scaled
  OperandMemory<Storage> q_t;      // (W, rows)     of every key head behind each other
  Tile<Real> out;                  // (rows, W)
  Tile<Storage> k;                 // (visited, groups of W or more)
  Tile<Storage> v;                 // (visited, groups of W or more)
  OperandMemory<Storage> values;   // (visited, W)  for v on the right
  Tile<Real> scores;               // (visited, rows)
  OperandMemory<Storage> weights;  // (rows, visited)
  Real* maximum;                   // (rows)  running, of the scores
  Real* highest;                   // (rows)  the same with this block
  Real* sum;                       // (rows)  of exp(score - maximum)
  Real* correction;                // (rows)

  KOKKOS_INLINE_FUNCTION ForwardSlot(TileSpace<Real>& space, const Geometry& n, int groups)
      : q(tile::take_stored<Storage>(space, n.rows_in(n.own), n.W)),
        q_t(tile::take_turned_right<Storage>(
            space, n.W, n.rows_in(n.own) + (groups > 1 ? groups * most_padding : 0))),
        out(space.take(n.rows_in(n.own), n.W)),
        k(tile::take_stored<Storage>(space, n.visited,
                                     groups * tile::stored_columns<Storage>(n.W))),
        v(tile::take_stored<Storage>(space, n.visited,
                                     groups * tile::stored_columns<Storage>(n.W))),
        values(tile::take_right<Storage>(space, n.visited, n.W)),
        scores(space.take(n.visited, n.rows_in(n.own))),
        weights(tile::take_left<Storage>(space, n.rows_in(n.own), n.visited)),
        maximum(space.take_row(n.rows_in(n.own))),
        highest(space.take_row(n.rows_in(n.own))),
        sum(space.take_row(n.rows_in(n.own))),
        correction(space.take_row(n.rows_in(n.own))) {}
};

/// The gradient of q: a team owns query rows and visits keys.
template <class Storage>
struct QuerySlot {
  using Real = Accum<Storage>;

  Tile<Storage> rows;             // (rows, W)     scaled queries, then dout
  OperandMemory<Storage> q_t;     // (W, rows)
  OperandMemory<Storage> dout_t;  // (W, rows)
  Tile<Real> dq;                  // (rows, W)
  Tile<Storage> k;                // (visited, W)
  Tile<Storage> v;                // (visited, W)
  OperandMemory<Storage> keys;    // (visited, W)  for k on the right
  Tile<Real> weights;             // (visited, rows)
  Tile<Real> dscores;             // (visited, rows)
  OperandMemory<Storage> turned;  // (rows, visited)
  Real* lse;                      // (rows)
  Real* delta;                    // (rows)

  KOKKOS_INLINE_FUNCTION QuerySlot(TileSpace<Real>& space, const Geometry& n)
      : rows(tile::take_stored<Storage>(space, n.rows_in(n.own), n.W)),
        q_t(tile::take_turned_right<Storage>(space, n.W, n.rows_in(n.own))),
        dout_t(tile::take_turned_right<Storage>(space, n.W, n.rows_in(n.own))),
        dq(space.take(n.rows_in(n.own), n.W)),
        k(tile::take_stored<Storage>(space, n.visited, n.W)),
        v(tile::take_stored<Storage>(space, n.visited, n.W)),
        keys(tile::take_right<Storage>(space, n.visited, n.W)),
        weights(space.take(n.visited, n.rows_in(n.own))),
        dscores(space.take(n.visited, n.rows_in(n.own))),
        turned(tile::take_left<Storage>(space, n.rows_in(n.own), n.visited)),
        lse(space.take_row(n.rows_in(n.own))),
        delta(space.take_row(n.rows_in(n.own))) {}
};

/// The gradients of k and v: a team owns keys and visits query rows.
template <class Storage>
struct KeySlot {
  using Real = Accum<Storage>;

  Tile<Storage> rows;               // (own, W)       keys, then values
  OperandMemory<Storage> k_t;       // (W, own)
  OperandMemory<Storage> v_t;       // (W, own)
  Tile<Real> dk;                    // (own, W)
  Tile<Real> dv;                    // (own, W)
  Tile<Storage> q;                  // (rows, W)      scaled
  Tile<Storage> dout;               // (rows, W)
  OperandMemory<Storage> visitors;  // (rows, W)      for q or dout on the right
  Tile<Real> weights;               // (rows, own)
  Tile<Real> dscores;               // (rows, own)
  OperandMemory<Storage> turned;    // (own, rows)

  KOKKOS_INLINE_FUNCTION KeySlot(TileSpace<Real>& space, const Geometry& n)
      : rows(tile::take_stored<Storage>(space, n.own, n.W)),
        k_t(tile::take_turned_right<Storage>(space, n.W, n.own)),
        v_t(tile::take_turned_right<Storage>(space, n.W, n.own)),
        dk(space.take(n.own, n.W)),
        dv(space.take(n.own, n.W)),
        q(tile::take_stored<Storage>(space, n.rows_in(n.visited), n.W)),
        dout(tile::take_stored<Storage>(space, n.rows_in(n.visited), n.W)),
        visitors(tile::take_right<Storage>(space, n.rows_in(n.visited), n.W)),
        weights(space.take(n.rows_in(n.visited), n.own)),
        dscores(space.take(n.rows_in(n.visited), n.own)),
        turned(tile::take_left<Storage>(space, n.own, n.rows_in(n.visited))) {}
};

template <class Storage>
Geometry geometry_of(const AttentionInput<Storage>& in, const AttentionTiles& tiles) {
  return {in.q.extent_int(1), in.k.extent_int(1), in.q.extent_int(2), tiles.own, tiles.visited};
}

/// Sets the counter of taken work to zero.
void reset(const Exec& exec, const Tensor<int, 1>& next);

}  // namespace qnext::attention
