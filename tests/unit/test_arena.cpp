// SPDX-License-Identifier: Apache-2.0
#include "core/arena.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

// The same calls on a measuring arena and on one of the measured size.
std::int64_t reserve_all(Arena& arena) {
  arena.reserve<float, 2>("kept", 3, 5);
  {
    const Arena::Scope scope(arena);
    arena.reserve<double, 1>("gone", 1000);
  }
  const auto after = arena.reserve<bf16, 3>("after", 2, 3, 4);
  EXPECT_EQ(after.extent(2), 4u);
  return arena.reserved();
}

TEST(Arena, MeasuresWhatItLaterNeeds) {
  Arena plan;
  reserve_all(plan);
  EXPECT_TRUE(plan.measuring());
  EXPECT_EQ(plan.peak(), 256 + 8192);  // `gone` (8000 bytes) behind `kept`, in steps of 256
  Arena arena(plan.peak());
  EXPECT_EQ(reserve_all(arena), 512);
  EXPECT_EQ(arena.peak(), plan.peak());
}

TEST(Arena, NamesWhatWasAliveAtThePeak) {
  Arena plan;
  {
    const Arena::Room room(plan, "layer");
    reserve_all(plan);
  }
  ASSERT_EQ(plan.at_peak().size(), 2u);
  EXPECT_EQ(plan.at_peak()[0].name, "layer.kept");
  EXPECT_EQ(plan.at_peak()[1].name, "layer.gone");
  EXPECT_EQ(plan.at_peak()[1].offset, 256);
}

TEST(Arena, AlternativesShareTheirMemoryAndTheLargestCounts) {
  Arena arena(4096);
  const void* first = nullptr;
  const void* second = nullptr;
  {
    Arena::Overlay overlay(arena);
    overlay.add([&] { first = arena.reserve<float, 1>("large", 300).data(); });
    overlay.add([&] { second = arena.reserve<float, 1>("small", 10).data(); });
  }
  EXPECT_EQ(first, second);
  EXPECT_EQ(arena.reserved(), 1280);
}

TEST(Arena, RefusesWhatDoesNotFit) {
  Arena arena(1024);
  try {
    arena.reserve<float, 1>("too much", 300);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what())
                  .find("the arena of 1024 bytes has no room for 1200 bytes of too much"),
              std::string::npos)
        << error.what();
    EXPECT_EQ(error.status(), Status::defect);
  }
}

}  // namespace
}  // namespace qnext
