// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"

#include <cstdint>
#include <vector>

namespace qnext {

/// A box of a global tensor, and where its elements lie among those that this rank holds, one
/// behind the other.
struct Hyperslab {
  std::vector<std::int64_t> offset;
  std::vector<std::int64_t> extent;
  std::int64_t begin;
  std::int64_t elements;
};

/// The boxes that make up the elements begin ... end - 1 of what a rank holds of a tensor, in their
/// order: of each box of the shard rows that are whole, and the ends of those that are not. Each
/// has at most `most` elements where a single row of its box has not more.
std::vector<Hyperslab> hyperslabs(const Shard& shard, std::int64_t begin, std::int64_t end,
                                  std::int64_t most);

}  // namespace qnext
