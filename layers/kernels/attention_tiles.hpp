// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/math.hpp"
#include "core/slot.hpp"
#include "core/team.hpp"
#include "core/tile.hpp"
#include "core/tile_operand.hpp"
#include "layers/kernels/attention.hpp"

#include <cmath>

/// What the walks of forward and backward share. Tiles of scores lie as (keys, query rows) where a
/// team owns queries and as (query rows, keys) where it owns keys: then no product needs a
/// transposed copy of what it visits, and statistics of the softmax lie along the vectors.
namespace qnext::attention {

using tile::OperandMemory;
using tile::Right;
using tile::Tile;
using tile::Turn;

/// A score that no key of a row can have, and where the running maximum starts: their distance has
/// an exponential of zero, and both are finite in float.
template <class Real>
inline constexpr Real masked = Real(-1e30);
template <class Real>
inline constexpr Real lowest_maximum = Real(-5e29);

/// sigma, split into a factor of the queries when they are loaded and one of the products: queries
/// that are rounded take it only if it is a power of two, and is not felt.
template <class Storage>
struct Scale {
  Accum<Storage> of_query;
  Accum<Storage> of_score;

  explicit Scale(int W) : of_query(1 / sqrt(Accum<Storage>(W))), of_score(1) {
    int exponent = 0;
    if (tile::rounds<Storage> && std::frexp(of_query, &exponent) != Accum<Storage>(0.5)) {
      of_score = of_query;
      of_query = 1;
    }
  }
};

/// Extents of an attention and of its tiles.
struct Geometry {
  int H;
  int G;
  int W;
  int own;      // rows of the tiles that a team keeps
  int visited;  // rows of the tiles that pass by

  KOKKOS_INLINE_FUNCTION int R() const { return H / G; }
  /// Tokens whose rows fit a tile of that many rows, at least one.
  KOKKOS_INLINE_FUNCTION int tokens_in(int rows) const { return rows < R() ? 1 : rows / R(); }
  KOKKOS_INLINE_FUNCTION int rows_in(int rows) const { return tokens_in(rows) * R(); }
};

/// Some consecutive tokens of a document with the rows of one key head g, or of `groups` of them
/// from g on: row r belongs to group i = r / (tokens R) and, with r' = r % (tokens R), to token
/// first + r' / R and query head (g + i) R + r' % R.
struct QueryBlock {
  int begin;  // of the document in the row of tokens
  int first;  // in the document
  int tokens;
  int g;
  int R;
  int groups = 1;

  KOKKOS_INLINE_FUNCTION int group_rows() const { return tokens * R; }
  KOKKOS_INLINE_FUNCTION int rows() const { return groups * group_rows(); }
  KOKKOS_INLINE_FUNCTION int token(int r) const { return begin + first + r % group_rows() / R; }
  KOKKOS_INLINE_FUNCTION int head(int r) const { return (g + r / group_rows()) * R + r % R; }
};

KOKKOS_INLINE_FUNCTION int blocks_of(int count, int block) {
  return (count + block - 1) / block;
}

KOKKOS_INLINE_FUNCTION int smaller(int a, int b) {
  return a < b ? a : b;
}
KOKKOS_INLINE_FUNCTION int larger(int a, int b) {
  return a < b ? b : a;
}

KOKKOS_INLINE_FUNCTION QueryBlock query_block(int begin, int length, int index, int tokens, int g,
                                              int R) {
  const int first = index * tokens;
  return {begin, first, smaller(tokens, length - first), g, R};
}

template <class Real>
KOKKOS_FORCEINLINE_FUNCTION void clear(const RowTeam& team, const Tile<Real>& tile) {
  for (int i = 0; i < tile.rows; ++i) {
    Real* const row = &tile(i, 0);
    for_each_in(team, tile.columns, [&](const int j) { row[j] = 0; });
  }
  team.team_barrier();
}

/// Fills a row of a stored tile; behind `width` come the zeros that an operand has.
template <class Storage, class F>
KOKKOS_FORCEINLINE_FUNCTION void fill_row(const RowTeam& team, Storage* row, int width,
                                          const F& value) {
  for_each_in(team, width, [&](const int w) { row[w] = value(w); });
  for_each_in(team, tile::stored_columns<Storage>(width) - width,
              [&](const int w) { row[width + w] = Storage(0); });
}

/// tile(r, w) = factor from(token, head, w) of row r of the block.
template <class Storage, class Real = Accum<Storage>>
KOKKOS_INLINE_FUNCTION void load_queries(const RowTeam& team, const Tensor<const Storage, 3>& from,
                                         const QueryBlock& block, Real factor,
                                         const Tile<Storage>& tile) {
  for (int r = 0; r < block.rows(); ++r) {
    const Storage* const source = &from(block.token(r), block.head(r), 0);
    fill_row(team, &tile(r, 0), from.extent_int(2),
             [&](const int w) { return Storage(factor * static_cast<Real>(source[w])); });
  }
  team.team_barrier();
}

/// tile(i, w) = from(first + i, head, w) for `count` tokens.
template <class Storage>
KOKKOS_INLINE_FUNCTION void load_rows(const RowTeam& team, const Tensor<const Storage, 3>& from,
                                      int first, int count, int head, const Tile<Storage>& tile) {
  for (int i = 0; i < count; ++i) {
    const Storage* const source = &from(first + i, head, 0);
    fill_row(team, &tile(i, 0), from.extent_int(2), [&](const int w) { return source[w]; });
  }
  team.team_barrier();
}

}  // namespace qnext::attention
