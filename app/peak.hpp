// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

namespace qnext {

/// FLOP/s of the best square matrix product of that storage type over the given sizes, each
/// repeated for at least `seconds`.
template <class Storage>
double product_peak(const std::vector<int>& sizes, double seconds);

/// Bytes/s, read and written, of a copy far beyond the caches.
double copy_peak();

}  // namespace qnext
