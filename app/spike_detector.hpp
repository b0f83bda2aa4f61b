// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <deque>

namespace qnext {

/// Finds a loss or a gradient norm that lies far above what was usual: more than `factor` times the
/// median of the last `window` values. Values that were spikes do not become usual. Says nothing
/// before the window is full.
class SpikeDetector {
 public:
  SpikeDetector(double factor, int window) : factor_(factor), window_(window) {}

  bool is_spike(double value);
  double median() const;

  /// The values that are remembered, oldest first: they belong to the restart.
  const std::deque<double>& recent() const { return recent_; }
  void restore(const std::deque<double>& recent) { recent_ = recent; }

 private:
  double factor_;
  std::size_t window_;
  std::deque<double> recent_;
};

}  // namespace qnext
