// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/slot.hpp"
#include "core/tile.hpp"
#include "core/tile_packing.hpp"
#include "core/tile_product_bf16.hpp"

#include <cstdint>
#include <type_traits>

/// Products of tiles for one storage type. Operands are prepared once and used in as many products
/// as want them: for float and double they are the tiles themselves, for bf16 they are rounded to
/// bf16 and laid out for the matrix units. Sums are Accum<Storage> in both.
namespace qnext::tile {

template <class Storage>
inline constexpr bool rounds = std::is_same_v<Storage, bf16>;

/// Blocks of operands begin at multiples of these: rows and terms of a left one, terms and columns
/// of a right one. A block of terms also ends at such a multiple, or with the operand.
template <class Storage>
inline constexpr int term_step = rounds<Storage> ? square_terms : 1;
template <class Storage>
inline constexpr int column_step = rounds<Storage> ? square_lanes : 1;

/// The left operand of a product, (rows, terms).
template <class Storage>
struct Left {
  Tile<const Storage> tile;
  Turn turn;

  KOKKOS_FUNCTION Left block(int row, int term, int rows, int terms) const {
    return turn == Turn::plain ? Left{tile.block(row, term, rows, terms), turn}
                               : Left{tile.block(term, row, terms, rows), turn};
  }
};
template <>
struct Left<bf16> {
  Tile<const bf16> tile;

  KOKKOS_FUNCTION Left block(int row, int term, int rows, int terms) const {
    return {tile.block(row, term, rows, terms)};
  }
};

/// The right operand of a product, (terms, columns).
template <class Storage>
struct Right {
  Tile<const Storage> tile;

  KOKKOS_FUNCTION Right block(int term, int column, int terms, int columns) const {
    return {tile.block(term, column, terms, columns)};
  }
};
template <>
struct Right<bf16> {
  const bf16* data;
  int terms;
  int columns;
  int depth;  // padded terms of the whole operand

  KOKKOS_FUNCTION Right block(int term, int column, int block_terms, int block_columns) const {
    return {data + right_place(term, column, depth), block_terms, block_columns, depth};
  }
};

/// Memory for one operand. What needs no copy gets none.
template <class Storage>
struct OperandMemory {
  Storage* data;
  int stride;
};

namespace detail {

template <class Storage>
KOKKOS_INLINE_FUNCTION OperandMemory<Storage> take_bytes(TileSpace<Accum<Storage>>& space, int rows,
                                                         int stride) {
  using Real = Accum<Storage>;
  constexpr int line = 16;  // elements of Real that every tile is a multiple of
  const std::int64_t elements =
      (std::int64_t(rows) * stride * std::int64_t(sizeof(Storage)) + sizeof(Real) - 1) /
      std::int64_t(sizeof(Real));
  Real* const begin = space.memory == nullptr ? nullptr : space.memory + space.used;
  space.used += (elements + line - 1) / line * line;
  return {reinterpret_cast<Storage*>(begin), stride};
}

}  // namespace detail

/// Memory for a left operand made by left or turned_left.
template <class Storage>
KOKKOS_INLINE_FUNCTION OperandMemory<Storage> take_left(TileSpace<Accum<Storage>>& space, int rows,
                                                        int terms) {
  if constexpr (rounds<Storage>) {
    return detail::take_bytes<Storage>(space, padded_lanes(rows), padded_terms(terms));
  } else {
    return {nullptr, 0};
  }
}

/// Memory for a right operand made by right.
template <class Storage>
KOKKOS_INLINE_FUNCTION OperandMemory<Storage> take_right(TileSpace<Accum<Storage>>& space,
                                                         int terms, int columns) {
  if constexpr (rounds<Storage>) {
    return detail::take_bytes<Storage>(space, padded_terms(terms), padded_lanes(columns));
  } else {
    return {nullptr, 0};
  }
}

/// Memory for a right operand made by turned_right.
template <class Storage>
KOKKOS_INLINE_FUNCTION OperandMemory<Storage> take_turned_right(TileSpace<Accum<Storage>>& space,
                                                                int terms, int columns) {
  if constexpr (rounds<Storage>) {
    return take_right<Storage>(space, terms, columns);
  } else {
    return detail::take_bytes<Storage>(space, terms, padded_stride(columns));
  }
}

/// A tile of numbers as they are stored, which may be a left operand as it is. Blocks of rows may
/// begin anywhere: what a unit reads behind their last row is memory of the tile.
template <class Storage>
KOKKOS_INLINE_FUNCTION Tile<Storage> take_stored(TileSpace<Accum<Storage>>& space, int rows,
                                                 int columns) {
  const auto memory = rounds<Storage>
                          ? detail::take_bytes<Storage>(
                                space, padded_lanes(rows + square_lanes - 1), padded_terms(columns))
                          : detail::take_bytes<Storage>(space, rows, padded_stride(columns));
  return {memory.data, rows, columns, memory.stride};
}

/// Columns that a row of a stored tile is written to: those behind `columns` with zeros.
template <class Storage>
KOKKOS_INLINE_FUNCTION int stored_columns(int columns) {
  return rounds<Storage> ? padded_terms(columns) : columns;
}

/// op(from) on the left. T is Storage or Accum<Storage>.
template <class Storage, class Team, class T>
KOKKOS_FUNCTION Left<Storage> left(const Team& team, Turn turn, const Tile<T>& from,
                                   const OperandMemory<Storage>& memory) {
  if constexpr (!rounds<Storage>) {
    return {from, turn};
  } else {
    const bool plain = turn == Turn::plain;
    const int rows = plain ? from.rows : from.columns, terms = plain ? from.columns : from.rows;
    const int stride = padded_terms(terms);
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
    detail::for_each(team, rows, stride, [&](const int i, const int k) {
      memory.data[i * stride + k] =
          k < terms ? bf16(static_cast<float>(plain ? from(i, k) : from(k, i))) : bf16(0.0f);
    });
#else
    (void)team;
    pack_left_on_cpu<std::remove_const_t<T>>(turn, rows, terms, from.data, from.stride, memory.data,
                                             stride);
#endif
    return {{memory.data, rows, terms, stride}};
  }
}

/// A stored tile on the left, in place; of bf16, its rows must have zeros up to padded_terms.
template <class Storage>
KOKKOS_FUNCTION Left<Storage> left(const Tile<Storage>& stored) {
  if constexpr (rounds<Storage>) {
    return {stored};
  } else {
    return {stored, Turn::plain};
  }
}

/// op(from) on the right. `turned` is a copy for every storage type: its memory is of
/// take_turned_right.
template <class Storage, class Team, class T>
KOKKOS_FUNCTION Right<Storage> right(const Team& team, Turn turn, const Tile<T>& from,
                                     const OperandMemory<Storage>& memory) {
  const bool plain = turn == Turn::plain;
  const int terms = plain ? from.rows : from.columns, columns = plain ? from.columns : from.rows;
  if constexpr (!rounds<Storage>) {
    if (plain) {
      return {from};
    }
    const Tile<Storage> to{memory.data, terms, columns, padded_stride(columns)};
    transpose(team, from, to);
    return {to};
  } else {
    const int depth = padded_terms(terms);
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
    detail::for_each(team, depth, columns, [&](const int k, const int j) {
      memory.data[right_place(k, j, depth)] =
          k < terms ? bf16(static_cast<float>(plain ? from(k, j) : from(j, k))) : bf16(0.0f);
    });
#else
    (void)team;
    pack_right_on_cpu<std::remove_const_t<T>>(turn, terms, columns, from.data, from.stride,
                                              memory.data);
#endif
    return {memory.data, terms, columns, depth};
  }
}

/// The operand that right has made in that memory from something turned.
template <class Storage>
KOKKOS_INLINE_FUNCTION Right<Storage> prepared_right(const OperandMemory<Storage>& memory,
                                                     int terms, int columns) {
  if constexpr (rounds<Storage>) {
    return {memory.data, terms, columns, padded_terms(terms)};
  } else {
    return {{memory.data, terms, columns, padded_stride(columns)}};
  }
}

/// c = a b or, if `add`, c += a b, with the extents of c and the terms of a.
template <class Storage, class Team>
KOKKOS_FUNCTION void multiply(const Team& team, const Left<Storage>& a, const Right<Storage>& b,
                              const Tile<Accum<Storage>>& c, bool add = false) {
  if constexpr (!rounds<Storage>) {
    if (!add) {
      fill(team, c, Accum<Storage>(0));
    }
    if (a.turn == Turn::plain) {
      multiply_add<Form::plain, Form::plain>(team, Storage(1), a.tile, b.tile, c);
    } else {
      multiply_add<Form::transposed, Form::plain>(team, Storage(1), a.tile, b.tile, c);
    }
  } else {
    const int terms = a.tile.columns;
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
    detail::for_each(team, c.rows, c.columns, [&](const int i, const int j) {
      float sum = add ? c(i, j) : 0.0f;
      for (int k = 0; k < terms; ++k) {
        sum += static_cast<float>(a.tile(i, k)) *
               static_cast<float>(b.data[right_place(k, j, b.depth)]);
      }
      c(i, j) = sum;
    });
#else
    (void)team;
    multiply_bf16_on_cpu(usual_unit(), c.rows, c.columns, terms, a.tile.data, a.tile.stride, b.data,
                         b.depth, c.data, c.stride, add);
#endif
  }
}

/// c += a b
template <class Storage, class Team>
KOKKOS_FUNCTION void multiply_add(const Team& team, const Left<Storage>& a, const Right<Storage>& b,
                                  const Tile<Accum<Storage>>& c) {
  multiply(team, a, b, c, true);
}

}  // namespace qnext::tile
