// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/bf16.hpp"

#include <cstdint>
#include <utility>

/// Vectors of a CPU in the words that GCC and clang share. For the kernels behind core/matmul and
/// core/tile; compilers vectorise everything else by themselves.
namespace qnext {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
inline constexpr int vector_registers = 32;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
inline constexpr int vector_registers = 16;
#elif defined(__aarch64__)
inline constexpr int vector_bytes = 16;
inline constexpr int vector_registers = 32;
#else
inline constexpr int vector_bytes = 16;
inline constexpr int vector_registers = 16;
#endif

/// A vector register of numbers, and the same in memory without alignment.
template <class Real>
struct Lanes {
  static constexpr int count = vector_bytes / int(sizeof(Real));
  typedef Real Vector __attribute__((vector_size(vector_bytes)));
  typedef Real Unaligned
      __attribute__((vector_size(vector_bytes), aligned(alignof(Real)), may_alias));
};

/// As many numbers as a vector of Real has lanes, widened.
template <class Real>
typename Lanes<Real>::Vector read(const Real* from) {
  return *reinterpret_cast<const typename Lanes<Real>::Unaligned*>(from);
}
template <class Real>
typename Lanes<Real>::Vector read(const bf16* from) {
  typedef std::uint16_t Halves
      __attribute__((vector_size(vector_bytes / 2), aligned(2), may_alias));
  typedef std::uint32_t Words __attribute__((vector_size(vector_bytes)));
  static_assert(sizeof(Real) == sizeof(std::uint32_t));
  const Words words = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words) << 16;
  return reinterpret_cast<typename Lanes<Real>::Vector>(words);
}

/// Rows of weights that are read once are asked for that many bytes ahead: with two threads that is
/// a fifth faster than what the processor finds by itself (51 against 42 GB/s, rows of 512 floats
/// beyond the second cache).
inline constexpr int bytes_ahead = 8192;
inline constexpr int cache_line = 64;

/// Asks for the cache line that far behind an element, which need not exist.
template <class T>
inline __attribute__((always_inline)) void prefetch_ahead(const T* from) {
  __builtin_prefetch(reinterpret_cast<const char*>(from) + bytes_ahead);
}

namespace detail {

// One step of the transposition of a square of vectors: swaps the off-diagonal quarters of every
// square of 2 distance rows and lanes.
template <class Vector, int distance, int... lane>
inline __attribute__((always_inline)) void swap_quarters(Vector* row,
                                                         std::integer_sequence<int, lane...>) {
  constexpr int lanes = sizeof...(lane);
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    if ((i & distance) == 0) {
      const auto low = row[i], high = row[i + distance];
      row[i] = __builtin_shufflevector(
          low, high, ((lane & distance) != 0 ? lanes + (lane ^ distance) : lane)...);
      row[i + distance] = __builtin_shufflevector(
          low, high, ((lane & distance) != 0 ? lanes + lane : lane ^ distance)...);
    }
  }
}

}  // namespace detail

/// Lane j of row i and lane i of row j change places, for as many rows as a vector has lanes.
template <int lanes, class Vector>
inline __attribute__((always_inline)) void transpose_lanes(Vector* row) {
  constexpr auto all = std::make_integer_sequence<int, lanes>();
  detail::swap_quarters<Vector, 1>(row, all);
  if constexpr (lanes > 2) {
    detail::swap_quarters<Vector, 2>(row, all);
  }
  if constexpr (lanes > 4) {
    detail::swap_quarters<Vector, 4>(row, all);
  }
  if constexpr (lanes > 8) {
    detail::swap_quarters<Vector, 8>(row, all);
  }
}

namespace detail {

template <int half, class Vector, int... lane>
inline __attribute__((always_inline)) Vector add_half(Vector vector,
                                                      std::integer_sequence<int, lane...>) {
  return vector + __builtin_shufflevector(vector, vector, (lane ^ half)...);
}

template <int half, int lanes, class Vector>
inline __attribute__((always_inline)) Vector add_halves(Vector vector) {
  if constexpr (half > 0) {
    constexpr auto all = std::make_integer_sequence<int, lanes>();
    return add_halves<half / 2, lanes>(add_half<half>(vector, all));
  } else {
    return vector;
  }
}

}  // namespace detail

/// The sum of all lanes, by halves.
template <class Real>
inline __attribute__((always_inline)) Real sum_of_lanes(typename Lanes<Real>::Vector vector) {
  constexpr int lanes = Lanes<Real>::count;
  return detail::add_halves<lanes / 2, lanes>(vector)[0];
}

}  // namespace qnext
