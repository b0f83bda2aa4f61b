// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "parallel/communicator.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <utility>

namespace qnext {

/// Transfers that go while their caller computes: one after the other, in the order in which they
/// were added, with only so many under way that their memory and their requests are bounded. All
/// ranks add theirs in the same order. What has arrived is ended, and what waits is started, in the
/// calls below alone.
class TransferQueue {
 public:
  struct Job {
    std::function<Transfer(int slot)> start;  // in a slot that no other one has meanwhile
    std::function<void(int slot)> end;        // behind its arrival
  };

  explicit TransferQueue(int slots) : slots_(slots) {}

  /// The number of the job: 0, 1, ...
  std::int64_t add(Job job);

  void progress();

  /// Until this job, or all, and those in front of it have ended.
  void wait(std::int64_t job);
  void wait() { wait(added_ - 1); }

 private:
  void start_next();
  void end_first();

  int slots_;
  std::int64_t added_ = 0, started_ = 0, ended_ = 0;
  std::deque<Job> jobs_;  // that have not ended
  std::deque<Transfer> under_way_;
};

}  // namespace qnext
