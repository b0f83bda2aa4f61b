// SPDX-License-Identifier: Apache-2.0
#include "core/phase.hpp"
#include "core/profile.hpp"
#include "core/types.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

TEST(Profile, CountsKernelsAndPhasesByLabel) {
  Profile::start();
  {
    const Phase outer("outer");
    for (int i = 0; i < 3; ++i) {
      const Phase inner("inner");
      Kokkos::parallel_for("test::nothing", Kokkos::RangePolicy<Exec>(0, 10), KOKKOS_LAMBDA(int){});
    }
  }
  Profile::stop();
  Kokkos::parallel_for("test::unseen", Kokkos::RangePolicy<Exec>(0, 10), KOKKOS_LAMBDA(int){});
  const auto lines = Profile::lines();
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].label, "outer");
  EXPECT_EQ(lines[0].calls, 1);
  EXPECT_TRUE(lines[0].phase);
  EXPECT_EQ(lines[1].label, "inner");
  EXPECT_EQ(lines[1].calls, 3);
  EXPECT_GE(lines[0].seconds, lines[1].seconds);
  EXPECT_EQ(lines[2].label, "test::nothing");
  EXPECT_EQ(lines[2].calls, 3);
  EXPECT_FALSE(lines[2].phase);
  EXPECT_NE(Profile::table(1.0).find("test::nothing"), std::string::npos);
}

}  // namespace
}  // namespace qnext
