// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace qnext {

/// The learning rate as a pure function of the number of the update.
///
///     warmup                peak n / warmup                    for n <= warmup
///     constant              peak
///     cosine                last + (peak - last) (1 + cos(pi x)) / 2,
///                           x from 0 after warmup to 1 at `steps`
///     warmup_stable_decay   peak, then a line down to last over the last `decay` updates
///
/// with last = final_fraction peak.
struct Schedule {
  enum class Kind { constant, cosine, warmup_stable_decay };

  Kind kind = Kind::constant;
  double peak = 0.0;
  std::int64_t steps = 0;   // updates after which the schedule has ended
  std::int64_t warmup = 0;  // updates
  std::int64_t decay = 0;   // updates
  double final_fraction = 0.1;

  /// Of update n = 1, 2, ...; beyond `steps` that of `steps`.
  double rate(std::int64_t n) const;
};

}  // namespace qnext
