// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

namespace qnext {

/// The first of n things that belongs to a part of them, if they are divided in order and the first
/// parts take one more where n is no multiple; part = parts: n.
inline std::int64_t part_begin(std::int64_t n, int part, int parts) {
  return n / parts * part + std::min<std::int64_t>(part, n % parts);
}

}  // namespace qnext
