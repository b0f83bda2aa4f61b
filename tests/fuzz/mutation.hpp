// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qnext::fuzz {

/// Input number `index` of a sequence that is always the same: a seed with one to eight changes, of
/// which each flips bits, writes numbers at the edges of types, or takes, doubles, removes and
/// exchanges pieces, also with other seeds and words.
std::string mutated(const std::vector<std::string>& seeds, const std::vector<std::string>& words,
                    std::uint64_t index);

}  // namespace qnext::fuzz
