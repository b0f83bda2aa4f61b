// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Kokkos_Macros.hpp>

#include <cmath>
#include <cstdint>
#include <string_view>

namespace qnext {

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input reaches every bit
/// of the output.
KOKKOS_INLINE_FUNCTION std::uint64_t mix_bits(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// A random number generator without a state: the same (key, counter) gives the same bits wherever
/// and in whatever order they are asked for, so that no result depends on the layout of a run.
KOKKOS_INLINE_FUNCTION std::uint64_t random_bits(std::uint64_t key, std::uint64_t counter) {
  return mix_bits(mix_bits(counter ^ mix_bits(key)) + key);
}

/// In [0, 1), 53 bits.
KOKKOS_INLINE_FUNCTION double random_uniform(std::uint64_t key, std::uint64_t counter) {
  return static_cast<double>(random_bits(key, counter) >> 11) * 0x1.0p-53;
}

/// Mean 0, deviation 1 (Box and Muller); takes the counters 2 i and 2 i + 1.
KOKKOS_INLINE_FUNCTION double random_normal(std::uint64_t key, std::uint64_t i) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - random_uniform(key, 2 * i)));
  return radius * std::cos(6.283185307179586 * random_uniform(key, 2 * i + 1));
}

/// The key of a stream: the FNV-1a hash of its name mixed with the seed of the run.
inline std::uint64_t random_key(std::uint64_t seed, std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return mix_bits(hash ^ mix_bits(seed));
}

}  // namespace qnext
