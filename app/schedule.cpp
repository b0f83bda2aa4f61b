// SPDX-License-Identifier: Apache-2.0
#include "app/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace qnext {

double Schedule::rate(std::int64_t n) const {
  const double last = final_fraction * peak;
  if (n < warmup) {
    return peak * static_cast<double>(n) / static_cast<double>(warmup);
  }
  n = std::min(n, steps);
  switch (kind) {
    case Kind::constant:
      return peak;
    case Kind::cosine: {
      const double length = static_cast<double>(std::max<std::int64_t>(1, steps - warmup));
      const double x = static_cast<double>(n - warmup) / length;
      return last + (peak - last) * 0.5 * (1.0 + std::cos(std::numbers::pi * x));
    }
    case Kind::warmup_stable_decay: {
      const std::int64_t into_decay = n - (steps - decay);
      if (into_decay <= 0) {
        return peak;
      }
      return peak + (last - peak) * static_cast<double>(into_decay) / static_cast<double>(decay);
    }
  }
  return peak;
}

}  // namespace qnext
