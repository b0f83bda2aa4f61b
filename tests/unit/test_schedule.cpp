// SPDX-License-Identifier: Apache-2.0
#include "app/schedule.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace qnext {
namespace {

// Every expected number below is the exact result of the equation in the header, or a cosine of a
// multiple of 60 degrees, which the rounding of the library moves by less than 4 ulp.
constexpr double four_ulp = 4 * 2.3e-16;

TEST(Schedule, WarmupIsALineFromTheFirstUpdate) {
  const Schedule s{Schedule::Kind::constant, 0.8, 100, 4, 0, 0.1};
  EXPECT_EQ(s.rate(1), 0.2);
  EXPECT_EQ(s.rate(2), 0.4);
  EXPECT_EQ(s.rate(4), 0.8);
  EXPECT_EQ(s.rate(100), 0.8);
}

TEST(Schedule, WithoutWarmupTheFirstUpdateHasThePeak) {
  const Schedule s{Schedule::Kind::constant, 0.001, 20, 0, 0, 1.0};
  EXPECT_EQ(s.rate(1), 0.001);
  EXPECT_EQ(s.rate(20), 0.001);
}

TEST(Schedule, CosineFallsFromThePeakToTheFinalFraction) {
  const Schedule s{Schedule::Kind::cosine, 1.0, 16, 4, 0, 0.25};
  EXPECT_EQ(s.rate(2), 0.5);
  EXPECT_EQ(s.rate(4), 1.0);
  EXPECT_NEAR(s.rate(8), 0.25 + 0.75 * 0.75, four_ulp);   // cos 60 = 1/2
  EXPECT_NEAR(s.rate(10), 0.25 + 0.75 * 0.5, four_ulp);   // cos 90 = 0
  EXPECT_NEAR(s.rate(12), 0.25 + 0.75 * 0.25, four_ulp);  // cos 120 = -1/2
  EXPECT_EQ(s.rate(16), 0.25);
  EXPECT_EQ(s.rate(1000), 0.25);
}

TEST(Schedule, WarmupStableDecayIsFlatAndThenALine) {
  const Schedule s{Schedule::Kind::warmup_stable_decay, 1.0, 20, 2, 4, 0.0};
  EXPECT_EQ(s.rate(1), 0.5);
  EXPECT_EQ(s.rate(2), 1.0);
  EXPECT_EQ(s.rate(16), 1.0);
  EXPECT_EQ(s.rate(17), 0.75);
  EXPECT_EQ(s.rate(19), 0.25);
  EXPECT_EQ(s.rate(20), 0.0);
  EXPECT_EQ(s.rate(21), 0.0);
}

}  // namespace
}  // namespace qnext
