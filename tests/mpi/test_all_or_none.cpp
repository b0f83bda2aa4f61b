// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "parallel/all_or_none.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <new>
#include <set>
#include <string>

namespace qnext {
namespace {

using test::world;

// What this rank throws when those of `failing` fail: the status and the message.
std::pair<Status, std::string> outcome(const std::set<int>& failing) {
  try {
    all_or_none(world(), [&] {
      if (failing.count(world().rank()) > 0) {
        throw EnvironmentError("rank " + std::to_string(world().rank()) + " has no disk");
      }
    });
  } catch (const Error& error) {
    return {error.status(), error.what()};
  }
  return {Status::done, ""};
}

TEST(AllOrNone, SaysNothingWhereNobodyFails) {
  EXPECT_EQ(outcome({}).first, Status::done);
}

TEST(AllOrNone, FailsOnAllWithTheErrorOfTheLowest) {
  const int last = world().ranks() - 1;
  for (int lowest = 0; lowest <= last; ++lowest) {
    const std::string sentence = "rank " + std::to_string(lowest) + " has no disk";
    const std::string place = " (on rank " + std::to_string(lowest) + ")";
    const auto [status, message] = outcome({lowest, last});
    EXPECT_EQ(status, Status::environment);
    EXPECT_EQ(message, world().rank() == lowest ? sentence : sentence + place);
  }
}

TEST(AllOrNone, PassesOnWhatIsNoErrorOfOurs) {
  const int last = world().ranks() - 1;
  const auto fail = [&](const auto& error) {
    all_or_none(world(), [&] {
      if (world().rank() == last) {
        throw error;
      }
    });
  };
  if (world().rank() == last) {
    EXPECT_THROW(fail(std::bad_alloc()), std::bad_alloc);
    EXPECT_THROW(fail(std::runtime_error("odd")), std::runtime_error);
    return;
  }
  try {
    fail(std::bad_alloc());
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::environment);
    EXPECT_EQ(error.what(),
              "the machine has no memory left (on rank " + std::to_string(last) + ")");
  }
  try {
    fail(std::runtime_error("odd"));
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::defect);
    EXPECT_EQ(error.what(), "odd (on rank " + std::to_string(last) + ")");
  }
}

}  // namespace
}  // namespace qnext
