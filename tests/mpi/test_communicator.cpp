// SPDX-License-Identifier: Apache-2.0
#include "tests/mpi/world.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <string>
#include <thread>
#include <vector>

namespace qnext {
namespace {

using test::world;

// Element i of rank r: all different.
double number(int r, int i) {
  return 1000.0 * r + i + 0.5;
}

Tensor<double, 1> numbers(int r, int count) {
  std::vector<double> values(count);
  for (int i = 0; i < count; ++i) {
    values[i] = number(r, i);
  }
  return test::to_device<double>(values, count);
}

Tensor<double, 1> nothing(int count) {
  Tensor<double, 1> view("nothing", count);
  Kokkos::deep_copy(view, std::numeric_limits<double>::quiet_NaN());
  return view;
}

TEST(Communicator, KnowsItsPlace) {
  EXPECT_GE(world().rank(), 0);
  EXPECT_LT(world().rank(), world().ranks());
  EXPECT_EQ(world().first(), world().rank() == 0);
}

TEST(Communicator, BroadcastsFromEachRank) {
  for (int root = 0; root < world().ranks(); ++root) {
    const auto view = world().rank() == root ? numbers(root, 7) : nothing(7);
    world().broadcast(view, root);
    EXPECT_EQ(test::to_host(view), test::to_host(numbers(root, 7)));
    std::string text = world().rank() == root ? "from " + std::to_string(root) : "nothing";
    world().broadcast(text, root);
    EXPECT_EQ(text, "from " + std::to_string(root));
  }
}

TEST(Communicator, GathersListsOfUnequalLength) {
  std::vector<double> mine, expected;
  for (int r = 0; r < world().ranks(); ++r) {
    for (int i = 0; i < (r * 2) % 5; ++i) {
      expected.push_back(number(r, i));
      if (r == world().rank()) {
        mine.push_back(number(r, i));
      }
    }
  }
  EXPECT_EQ(world().all_gather(mine), expected);
}

TEST(Communicator, GathersPartsInPlace) {
  std::vector<std::int64_t> borders{0};
  std::vector<double> expected;
  for (int r = 0; r < world().ranks(); ++r) {
    const int count = r == 1 ? 0 : 3 + r;  // one of them is empty
    for (int i = 0; i < count; ++i) {
      expected.push_back(number(r, i));
    }
    borders.push_back(borders.back() + count);
  }
  const int begin = static_cast<int>(borders[world().rank()]);
  const int end = static_cast<int>(borders[world().rank() + 1]);
  auto values = std::vector<double>(expected.size(), std::numeric_limits<double>::quiet_NaN());
  std::copy(expected.begin() + begin, expected.begin() + end, values.begin() + begin);
  const auto view = test::to_device<double>(values, static_cast<int>(values.size()));
  world().all_gather_parts(view, borders);
  EXPECT_EQ(test::to_host(view), expected);
}

TEST(Communicator, SumsAndMaximaOfWholeNumbers) {
  const std::int64_t r = world().rank(), R = world().ranks();
  std::vector<std::int64_t> sums{r + 1, std::int64_t{1} << 50, -r};
  std::vector<std::int64_t> largest{r, -r, r == R - 1 ? 75 : 0};
  world().sum(sums);
  world().maximum(largest);
  EXPECT_EQ(sums, (std::vector<std::int64_t>{R * (R + 1) / 2, R << 50, -R * (R - 1) / 2}));
  EXPECT_EQ(largest, (std::vector<std::int64_t>{R - 1, 0, 75}));
}

TEST(Communicator, SendsAlongTheRanks) {
  const int r = world().rank(), R = world().ranks();
  const auto view = r == 0 ? numbers(42, 5) : nothing(5);
  if (r > 0) {
    world().receive(view, r - 1);
  }
  if (r + 1 < R) {
    world().send(view, r + 1);
  }
  EXPECT_EQ(test::to_host(view), test::to_host(numbers(42, 5)));
}

// Two parcels to the same rank keep their order, and all ranks may send before anybody receives.
TEST(Communicator, ExchangesInARing) {
  const int r = world().rank(), R = world().ranks();
  const int right = (r + 1) % R, left = (r + R - 1) % R;
  const int large = 300000;  // too large to wait in a mailbox
  const auto first = numbers(r, large), second = numbers(r + 100, 3);
  const auto got_first = nothing(large), got_second = nothing(3);
  world().exchange({{right, buffer_of(first)}, {right, buffer_of(second)}},
                   {{left, buffer_of(got_first)}, {left, buffer_of(got_second)}});
  EXPECT_EQ(test::to_host(got_first), test::to_host(numbers(left, large)));
  EXPECT_EQ(test::to_host(got_second), test::to_host(numbers(left + 100, 3)));
}

// Everybody goes on before anybody receives. A transfer that takes the place of another one waits
// for it.
TEST(Communicator, StartsMessagesAndGoesOn) {
  const int r = world().rank(), R = world().ranks();
  if (R == 1) {
    GTEST_SKIP() << "nobody to send to";
  }
  const int right = (r + 1) % R, left = (r + R - 1) % R;
  const int large = 300000;
  const auto first = numbers(r, large), second = numbers(r + 100, 3);
  const auto got_first = nothing(large), got_second = nothing(3);
  Transfer sent = world().start({{right, buffer_of(first)}}, {});
  Transfer receives = world().start({}, {{left, buffer_of(got_first)}});
  receives.wait();
  EXPECT_EQ(test::to_host(got_first), test::to_host(numbers(left, large)));
  sent = world().start({{right, buffer_of(second)}}, {});
  world().receive(got_second, left);
  EXPECT_EQ(test::to_host(got_second), test::to_host(numbers(left + 100, 3)));
  sent.wait();
  sent.wait();  // nothing is under way
}

// Rank r has r + 2 t numbers for rank t.
TEST(Communicator, AllToAllWithCounts) {
  const int r = world().rank(), R = world().ranks();
  std::vector<std::int64_t> to_counts, from_counts;
  std::vector<double> out, expected;
  for (int t = 0; t < R; ++t) {
    to_counts.push_back(r + 2 * t);
    from_counts.push_back(t + 2 * r);
    for (int i = 0; i < r + 2 * t; ++i) {
      out.push_back(number(10 * r + t, i));
    }
    for (int i = 0; i < t + 2 * r; ++i) {
      expected.push_back(number(10 * t + r, i));
    }
  }
  const auto from = test::to_device<double>(out, static_cast<int>(out.size()));
  const auto to = nothing(static_cast<int>(expected.size()));
  world().all_to_all(from, to_counts, to, from_counts);
  EXPECT_EQ(test::to_host(to), expected);
}

TEST(Communicator, SplitsByColour) {
  const int r = world().rank(), R = world().ranks();
  const Communicator part = world().split(r % 2);
  EXPECT_EQ(part.rank(), r / 2);
  EXPECT_EQ(part.ranks(), (R + 1 - r % 2) / 2);
  std::vector<std::int64_t> sum{r};
  part.sum(sum);
  std::int64_t expected = 0;
  for (int other = r % 2; other < R; other += 2) {
    expected += other;
  }
  EXPECT_EQ(sum.front(), expected);
}

TEST(Communicator, CountsItsOwnBytes) {
  const Communicator part = world().split(0);
  const auto before = part.traffic().kinds;
  const auto view = numbers(part.rank(), 4);
  const auto got = nothing(4);
  const int R = part.ranks();
  part.exchange({{(part.rank() + 1) % R, buffer_of(view)}},
                {{(part.rank() + R - 1) % R, buffer_of(got)}});
  part.barrier();
  const auto& after = part.traffic().kinds;
  const auto difference = [&](const char* kind, std::int64_t Traffic::Sum::*what) {
    const auto old = before.find(kind);
    return after.at(kind).*what - (old == before.end() ? 0 : old->second.*what);
  };
  EXPECT_EQ(difference("exchange", &Traffic::Sum::calls), 1);
  EXPECT_EQ(difference("exchange", &Traffic::Sum::bytes), R == 1 ? 0 : 4 * 8);
  EXPECT_EQ(difference("barrier", &Traffic::Sum::calls), 1);
  EXPECT_NE(part.traffic().table().find("exchange"), std::string::npos);
}

// The last rank arrives late; nobody leaves before it has come.
TEST(Communicator, BarrierHoldsEverybody) {
  using Clock = std::chrono::steady_clock;
  world().barrier();
  const bool late = world().rank() == world().ranks() - 1;
  const auto begin = Clock::now();
  if (late) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  world().barrier();
  EXPECT_GE(Clock::now() - begin, std::chrono::milliseconds(100));
}

}  // namespace
}  // namespace qnext
