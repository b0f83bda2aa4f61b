// SPDX-License-Identifier: Apache-2.0
#include "parallel/watchdog.hpp"

#include <fmt/format.h>

namespace qnext {

Watchdog::Watchdog(const Communicator& world, std::chrono::milliseconds patience, Say say)
    : world_(world), patience_(patience), say_(std::move(say)), thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  end_.notify_one();
  thread_.join();
}

void Watchdog::watch() {
  using Clock = std::chrono::steady_clock;
  Clock::time_point told{};  // once for each place
  std::unique_lock lock(mutex_);
  while (!end_.wait_for(lock, patience_ / 4, [this] { return ended_; })) {
    const Traffic::Standing at = world_.traffic().standing();
    const auto stood = Clock::now() - at.since;
    if (stood < patience_ || at.since == told) {
      continue;
    }
    told = at.since;
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(stood).count();
    say_(fmt::format("rank {} of {}: {}", world_.rank(), world_.ranks(),
                     at.inside ? fmt::format("waits in {} since {} s", at.call, seconds)
                               : fmt::format("computes since {} s, behind {}", seconds, at.call)));
  }
}

}  // namespace qnext
