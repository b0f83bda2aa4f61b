// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/bf16.hpp"

#include <Kokkos_Macros.hpp>

#include <cstdint>

/// How operands of bf16 products lie in memory: what the matrix units of CPUs read. Both are made
/// of squares of 16 rows of 64 bytes, and every extent is padded with zeros to whole squares of
/// terms.
namespace qnext::tile {

inline constexpr int square_lanes = 16;  // rows of a left operand, columns of a right one
inline constexpr int square_terms = 32;

KOKKOS_INLINE_FUNCTION constexpr int padded_lanes(int extent) {
  return (extent + square_lanes - 1) / square_lanes * square_lanes;
}
KOKKOS_INLINE_FUNCTION constexpr int padded_terms(int extent) {
  return (extent + square_terms - 1) / square_terms * square_terms;
}

/// Where term k of column j lies in a right operand of that many padded terms: panels of 16
/// columns, in a panel pairs of terms, in a pair the columns.
KOKKOS_INLINE_FUNCTION constexpr std::int64_t right_place(int k, int j, int terms) {
  return std::int64_t(j / square_lanes) * square_lanes * terms + k / 2 * (2 * square_lanes) +
         j % square_lanes * 2 + k % 2;
}

/// What packing does to the extents: `plain` keeps rows rows, `turned` transposes.
enum class Turn { plain, turned };

/// A left operand (rows, terms), row i at to + i stride, from float or bf16 rows of that stride;
/// `turned` from (terms, rows). Terms up to padded_terms become zero.
template <class T>
void pack_left_on_cpu(Turn turn, int rows, int terms, const T* from, std::int64_t from_stride,
                      bf16* to, std::int64_t stride);

/// A right operand (terms, columns), element (k, j) at right_place(k, j, padded_terms(terms));
/// `turned` from (columns, terms).
template <class T>
void pack_right_on_cpu(Turn turn, int terms, int columns, const T* from, std::int64_t from_stride,
                       bf16* to);

}  // namespace qnext::tile
