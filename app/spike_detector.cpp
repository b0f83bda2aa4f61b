// SPDX-License-Identifier: Apache-2.0
#include "app/spike_detector.hpp"

#include <algorithm>
#include <vector>

namespace qnext {

double SpikeDetector::median() const {
  std::vector<double> sorted(recent_.begin(), recent_.end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

bool SpikeDetector::is_spike(double value) {
  bool spike = false;
  if (recent_.size() == window_) {
    usual_ = median();
    spike = value > factor_ * usual_;
  }
  recent_.push_back(value);
  if (recent_.size() > window_) {
    recent_.pop_front();
  }
  return spike;
}

}  // namespace qnext
