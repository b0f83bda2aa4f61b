// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <deque>

namespace qnext {

/// Finds a loss or a gradient norm that lies far above what was usual: more than `factor` times the
/// median of the last `window` values. Spikes are among these: a few leave the median where it is,
/// and values that stay high become usual after half a window. Says nothing before the window is
/// full.
class SpikeDetector {
 public:
  SpikeDetector(double factor, int window) : factor_(factor), window_(window) {}

  bool is_spike(double value);
  double median() const;

  /// The median that the last value was held against.
  double usual() const { return usual_; }

  /// The values that are remembered, oldest first: they belong to the restart.
  const std::deque<double>& recent() const { return recent_; }
  void restore(const std::deque<double>& recent) { recent_ = recent; }

 private:
  double factor_;
  std::size_t window_;
  std::deque<double> recent_;
  double usual_ = 0.0;
};

}  // namespace qnext
