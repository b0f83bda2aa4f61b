// SPDX-License-Identifier: Apache-2.0
#include "core/tile_packing.hpp"

#include "core/vector.hpp"

#include <algorithm>

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#include <immintrin.h>
#define QNEXT_PACK_BY_AVX512
#endif

namespace qnext::tile {
namespace {

// Sixteen pairs of bf16 numbers, the first of a pair in the lower half.
typedef std::uint32_t Pairs __attribute__((vector_size(64)));
typedef std::uint32_t UnalignedPairs __attribute__((vector_size(64), aligned(2), may_alias));
static_assert(sizeof(Pairs) == square_lanes * sizeof(std::uint32_t));

#define QNEXT_INLINE inline __attribute__((always_inline))

#if defined(QNEXT_PACK_BY_AVX512)

// (low[i], high[i]) for 16 columns of two rows.
QNEXT_INLINE Pairs pairs_of_rows(const float* low, const float* high) {
  const __m512i interleave =
      _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                       21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512bh halves = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
  return reinterpret_cast<Pairs>(
      _mm512_permutexvar_epi16(interleave, reinterpret_cast<__m512i>(halves)));
}
// (row[2 i], row[2 i + 1]).
QNEXT_INLINE Pairs pairs_of_run(const float* row) {
  return reinterpret_cast<Pairs>(
      _mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + square_lanes), _mm512_loadu_ps(row)));
}

#else

QNEXT_INLINE std::uint32_t pair(float low, float high) {
  return bf16(low).bits | std::uint32_t(bf16(high).bits) << 16;
}
QNEXT_INLINE Pairs pairs_of_rows(const float* low, const float* high) {
  Pairs pairs;
  for (int i = 0; i < square_lanes; ++i) {
    pairs[i] = pair(low[i], high[i]);
  }
  return pairs;
}
QNEXT_INLINE Pairs pairs_of_run(const float* row) {
  Pairs pairs;
  for (int i = 0; i < square_lanes; ++i) {
    pairs[i] = pair(row[2 * i], row[2 * i + 1]);
  }
  return pairs;
}

#endif

QNEXT_INLINE Pairs pairs_of_rows(const bf16* low, const bf16* high) {
  typedef std::uint16_t Halves __attribute__((vector_size(32), aligned(2), may_alias));
  const auto widened = [](const bf16* from) {
    return __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Pairs);
  };
  return widened(low) | widened(high) << 16;
}
QNEXT_INLINE Pairs pairs_of_run(const bf16* row) {
  return *reinterpret_cast<const UnalignedPairs*>(row);
}

// How the sixteen vectors of a square are read: from 16 rows of 32 terms each, or from 32 rows of
// 16 lanes each.
enum class Read { runs, pairs };

template <Read read, bool transposed, class T>
QNEXT_INLINE void pack_square(const T* from, std::int64_t from_stride, bf16* to,
                              std::int64_t stride) {
  Pairs square[square_lanes];
#pragma GCC unroll 16
  for (int i = 0; i < square_lanes; ++i) {
    if constexpr (read == Read::runs) {
      square[i] = pairs_of_run(from + i * from_stride);
    } else {
      square[i] = pairs_of_rows(from + 2 * i * from_stride, from + (2 * i + 1) * from_stride);
    }
  }
  if constexpr (transposed) {
    transpose_lanes<square_lanes>(square);
  }
#pragma GCC unroll 16
  for (int i = 0; i < square_lanes; ++i) {
    *reinterpret_cast<UnalignedPairs*>(to + i * stride) = square[i];
  }
}

// All squares of an operand with so many lanes (rows of a left one, columns of a right one).
// Squares that the source does not fill are read by way of zeros. `place` says where a square goes.
template <Read read, bool transposed, class T, class Place>
void pack(int lanes, int terms, const T* from, std::int64_t from_stride, std::int64_t stride,
          const Place& place) {
  constexpr bool runs = read == Read::runs;
  for (int lane = 0; lane < lanes; lane += square_lanes) {
    const int held_lanes = std::min(square_lanes, lanes - lane);
    for (int term = 0; term < terms; term += square_terms) {
      const int held_terms = std::min(square_terms, terms - term);
      const T* const source = from + (runs ? lane * from_stride + term : term * from_stride + lane);
      bf16* const to = place(lane, term);
      if (held_lanes == square_lanes && held_terms == square_terms) {
        pack_square<read, transposed>(source, from_stride, to, stride);
        continue;
      }
      constexpr int width = runs ? square_terms : square_lanes;
      const int rows = runs ? held_lanes : held_terms, columns = runs ? held_terms : held_lanes;
      T edge[square_lanes * square_terms];
      std::fill_n(edge, square_lanes * square_terms, T(0.0f));
      for (int i = 0; i < rows; ++i) {
        std::copy_n(source + i * from_stride, columns, edge + i * width);
      }
      pack_square<read, transposed>(edge, width, to, stride);
    }
  }
}

}  // namespace

template <class T>
void pack_left_on_cpu(Turn turn, int rows, int terms, const T* from, std::int64_t from_stride,
                      bf16* to, std::int64_t stride) {
  const auto place = [&](int row, int term) { return to + row * stride + term; };
  if (turn == Turn::plain) {
    pack<Read::runs, false>(rows, terms, from, from_stride, stride, place);
  } else {
    pack<Read::pairs, true>(rows, terms, from, from_stride, stride, place);
  }
}

template <class T>
void pack_right_on_cpu(Turn turn, int terms, int columns, const T* from, std::int64_t from_stride,
                       bf16* to) {
  constexpr int stride = 2 * square_lanes;
  const int depth = padded_terms(terms);
  const auto place = [&](int column, int term) { return to + right_place(term, column, depth); };
  if (turn == Turn::plain) {
    pack<Read::pairs, false>(columns, terms, from, from_stride, stride, place);
  } else {
    pack<Read::runs, true>(columns, terms, from, from_stride, stride, place);
  }
}

#define QNEXT_INSTANTIATE(T)                                                                      \
  template void pack_left_on_cpu<T>(Turn, int, int, const T*, std::int64_t, bf16*, std::int64_t); \
  template void pack_right_on_cpu<T>(Turn, int, int, const T*, std::int64_t, bf16*);
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(bf16)
#undef QNEXT_INSTANTIATE

}  // namespace qnext::tile
