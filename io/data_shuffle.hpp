// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/random.hpp"

#include <bit>
#include <cstdint>

namespace qnext {

/// A shuffle that needs no memory: for each key a bijection of 0 ... count - 1.
///
/// A Feistel network permutes the smallest set of 4^h numbers that holds `count` of them; a result
/// that is too large is permuted again until it is not (cycle walking), which keeps it a bijection
/// and takes less than four rounds on average, because 4^h < 4 count.
inline std::int64_t shuffled(std::int64_t index, std::int64_t count, std::uint64_t key) {
  const int bits = std::bit_width(static_cast<std::uint64_t>(count - 1));
  const int half = bits < 2 ? 1 : (bits + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  auto x = static_cast<std::uint64_t>(index);
  do {
    std::uint64_t left = x >> half, right = x & mask;
    for (std::uint64_t round = 0; round < 6; ++round) {
      const std::uint64_t mixed = left ^ (random_bits(key + round, right) & mask);
      left = right;
      right = mixed;
    }
    x = (left << half) | right;
  } while (x >= static_cast<std::uint64_t>(count));
  return static_cast<std::int64_t>(x);
}

}  // namespace qnext
