// SPDX-License-Identifier: Apache-2.0
#include "parallel/watchdog.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace qnext {
namespace {

using namespace std::chrono_literals;
using test::world;

// The last rank comes late; the watchdog's thread is gone before what it said is read.
std::vector<std::string> said_while(std::chrono::milliseconds late) {
  std::vector<std::string> said;
  world().barrier();
  {
    const Watchdog watchdog(world(), 1000ms,
                            [&](const std::string& text) { said.push_back(text); });
    if (world().rank() == world().ranks() - 1) {
      std::this_thread::sleep_for(late);
    }
    world().barrier();
  }
  return said;
}

TEST(Watchdog, TellsWhoWaitsAndWhoDoesNotCome) {
  const auto said = said_while(3000ms);
  ASSERT_EQ(said.size(), 1u) << "once for each place";
  const bool late = world().rank() == world().ranks() - 1;
  EXPECT_EQ(said[0].find("rank " + std::to_string(world().rank()) + " of " +
                         std::to_string(world().ranks()) + ": " +
                         (late ? "computes since " : "waits in barrier since ")),
            0u)
      << said[0];
  if (late) {
    EXPECT_NE(said[0].find(" s, behind barrier"), std::string::npos) << said[0];
  }
}

TEST(Watchdog, IsSilentWhileTheJobMoves) {
  EXPECT_TRUE(said_while(0ms).empty());
}

}  // namespace
}  // namespace qnext
