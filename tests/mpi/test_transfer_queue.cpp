// SPDX-License-Identifier: Apache-2.0
#include "parallel/transfer_queue.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

namespace qnext {
namespace {

using test::world;

// Numbers that go around in a ring, each job in the memory of its slot.
struct Ring {
  static constexpr int slots = 3;
  static constexpr int count = 10000;

  explicit Ring(const char* name) : group(world().split(0).named(name)) {}

  Communicator group;
  int right = (group.rank() + 1) % group.ranks();
  int left = (group.rank() + group.ranks() - 1) % group.ranks();
  HostTensor<int, 2> sent{"sent", slots, count}, received{"received", slots, count};
  TransferQueue queue{slots};
  std::vector<int> arrived;  // the numbers of the ended jobs in their order
  int under_way = 0, most_under_way = 0;

  static Buffer row(const HostTensor<int, 2>& numbers, int slot) {
    return buffer_of(HostTensor<int, 1>(&numbers(slot, 0), count));
  }

  std::int64_t add(int number) {
    TransferQueue::Job job;
    job.start = [this, number](int slot) {
      most_under_way = std::max(most_under_way, ++under_way);
      for (int i = 0; i < count; ++i) {
        sent(slot, i) = number + i;
      }
      return group.start({{right, row(sent, slot)}}, {{left, row(received, slot)}});
    };
    job.end = [this, number](int slot) {
      --under_way;
      bool same = true;
      for (int i = 0; i < count; ++i) {
        same = same && received(slot, i) == number + i;
      }
      arrived.push_back(same ? number : -1);
    };
    return queue.add(std::move(job));
  }
};

TEST(TransferQueue, KeepsItsOrderAndItsSlots) {
  Ring ring("ring");
  std::vector<int> added;
  for (int number = 0; number < 8; ++number) {
    EXPECT_EQ(ring.add(100 * number), number);
    added.push_back(100 * number);
  }
  ring.queue.wait(1);
  EXPECT_GE(ring.arrived.size(), 2u);
  ring.queue.wait();
  EXPECT_EQ(ring.arrived, added);
  EXPECT_EQ(ring.most_under_way, Ring::slots);
  ring.queue.wait();
  ring.queue.wait(-1);
  EXPECT_EQ(ring.arrived, added);
}

TEST(TransferQueue, MovesOnWithoutWaiting) {
  Ring ring("ring");
  for (int number = 0; number < 8; ++number) {
    ring.add(number);
  }
  while (ring.arrived.size() < 8) {
    ring.queue.progress();
  }
  EXPECT_EQ(ring.arrived, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
}

// Seconds under way are those of the clock, each once however many transfers there are, and what a
// blocking call takes is not hidden.
TEST(Traffic, TellsHowLongMessagesAreUnderWay) {
  const auto begin = Traffic::Clock::now();
  Ring ring("timed ring");
  for (int number = 0; number < 8; ++number) {
    ring.add(number);
  }
  ring.queue.wait();
  const std::chrono::duration<double> passed = Traffic::Clock::now() - begin;
  const Traffic::GroupSum& sum = ring.group.traffic().groups.at("timed ring");
  EXPECT_EQ(sum.open, 0);
  EXPECT_EQ(sum.calls, 8);
  EXPECT_GT(sum.under_way, 0.0);
  EXPECT_LE(sum.under_way, passed.count());
  EXPECT_GE(sum.hidden(), 0.0);
  EXPECT_LE(sum.hidden(), 1.0);

  const Communicator blocking = world().named("blocking");
  blocking.barrier();
  const Traffic::GroupSum& waited = blocking.traffic().groups.at("blocking");
  EXPECT_GT(waited.under_way, 0.0);
  EXPECT_EQ(waited.hidden(), 0.0);
}

}  // namespace
}  // namespace qnext
