// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <string>

namespace qnext {

/// What one rank has said to others, by kind of call and by group of ranks, shown by `--profile`;
/// and where it stands.
class Traffic {
 public:
  struct Sum {
    std::int64_t calls = 0;
    std::int64_t bytes = 0;  // of this rank's own data that other ranks get to see
  };
  std::map<std::string, Sum> kinds;   // by call
  std::map<std::string, Sum> groups;  // the same by the ranks that it goes to

  /// One call, from here to its end.
  class Call {
   public:
    Call(Traffic& traffic, const std::string& group, const char* kind, std::int64_t bytes);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    Traffic& traffic_;
  };

  /// Inside a call, or behind it, since when. Another thread may ask.
  struct Standing {
    const char* call;
    bool inside;
    std::chrono::steady_clock::time_point since;
  };
  Standing standing() const { return {call_, inside_, since_.load()}; }

  /// A line for each kind and each group.
  std::string table() const;

 private:
  std::atomic<const char*> call_{"start"};
  std::atomic<bool> inside_{false};
  std::atomic<std::chrono::steady_clock::time_point> since_{std::chrono::steady_clock::now()};
};

}  // namespace qnext
