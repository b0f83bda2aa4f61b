// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "parallel/communicator.hpp"

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace qnext {

/// Says where this rank stands when it has stood there for longer than `patience`: each rank has
/// one, so a job that hangs tells which ranks wait, for what, and which one does not come.
///
///     rank 2 of 4: waits in exchange since 600 s
///     rank 3 of 4: computes since 600 s, behind sum
class Watchdog {
 public:
  using Say = std::function<void(const std::string&)>;

  Watchdog(const Communicator& world, std::chrono::milliseconds patience, Say say);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void watch();

  Communicator world_;
  std::chrono::milliseconds patience_;
  Say say_;
  std::mutex mutex_;
  std::condition_variable end_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace qnext
