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

TEST(SpikeDetector, ASpikeDoesNotBecomeUsual) {
  SpikeDetector detector(2.0, 1);
  detector.is_spike(1.0);
  EXPECT_TRUE(detector.is_spike(5.0));
  EXPECT_TRUE(detector.is_spike(5.0));
  EXPECT_EQ(detector.median(), 1.0);
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
