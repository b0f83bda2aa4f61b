// SPDX-License-Identifier: Apache-2.0
#include "app/spike_detector.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

TEST(SpikeDetector, SaysNothingBeforeItsWindowIsFull) {
  SpikeDetector detector(2.0, 3);
  EXPECT_FALSE(detector.is_spike(1.0));
  EXPECT_FALSE(detector.is_spike(100.0));
  EXPECT_FALSE(detector.is_spike(1.0));
  EXPECT_TRUE(detector.is_spike(2.1));
}

TEST(SpikeDetector, ComparesWithTheMedianOfTheLastValues) {
  SpikeDetector detector(2.0, 3);
  for (const double value : {1.0, 3.0, 2.0}) {
    detector.is_spike(value);
  }
  EXPECT_EQ(detector.median(), 2.0);
  EXPECT_FALSE(detector.is_spike(4.0));
  EXPECT_EQ(detector.median(), 3.0);
}

// A few spikes leave the median where it is; norms that stay high become the usual ones after half
// a window, so that a run that skips spikes goes on.
TEST(SpikeDetector, OnlyWhatLastsBecomesUsual) {
  SpikeDetector detector(2.0, 5);
  for (int i = 0; i < 5; ++i) {
    EXPECT_FALSE(detector.is_spike(1.0));
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(detector.median(), 1.0);
    EXPECT_TRUE(detector.is_spike(5.0));
    EXPECT_EQ(detector.usual(), 1.0);
  }
  EXPECT_EQ(detector.median(), 5.0);
  EXPECT_FALSE(detector.is_spike(5.0));
}

TEST(SpikeDetector, GoesOnFromARestart) {
  SpikeDetector first(2.0, 2), second(2.0, 2);
  first.is_spike(1.0);
  first.is_spike(3.0);
  second.restore(first.recent());
  EXPECT_EQ(first.is_spike(6.5), second.is_spike(6.5));
  EXPECT_EQ(first.median(), second.median());
}

}  // namespace
}  // namespace qnext
