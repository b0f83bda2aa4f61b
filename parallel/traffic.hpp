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
  using Clock = std::chrono::steady_clock;

  struct Sum {
    std::int64_t calls = 0;
    std::int64_t bytes = 0;  // of this rank's own data that other ranks get to see
  };

  /// Seconds with a message under way, each second once, and those of them that this rank spent in
  /// the calls that start, move and end it. A message that nobody waits for is under way until a
  /// call finds that it has arrived.
  struct Hiding {
    double under_way = 0.0;
    double in_calls = 0.0;
    double hidden() const { return under_way > in_calls ? 1.0 - in_calls / under_way : 0.0; }
  };
  struct GroupSum : Sum, Hiding {
    int open = 0;  // messages under way
    Clock::time_point since;
  };
  std::map<std::string, Sum> kinds;        // by call
  std::map<std::string, GroupSum> groups;  // the same by the ranks that it goes to

  /// A message of a group is on its way, until `arrives`.
  void departs(const std::string& group);
  void arrives(const std::string& group);

  /// Time inside a call of MPI, from here to its end.
  class Inside {
   public:
    Inside(Traffic& traffic, const std::string& group, const char* what);
    ~Inside();
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    Traffic& traffic_;
    GroupSum& group_;
    Clock::time_point begin_;
  };

  /// One call whose messages have arrived at its end.
  class Call {
   public:
    Call(Traffic& traffic, const std::string& group, const char* kind, std::int64_t bytes);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    Traffic& traffic_;
    const std::string& group_;
    Inside inside_;
  };

  /// Counts a call that sends so many bytes.
  void count(const std::string& group, const char* kind, std::int64_t bytes);

  /// Inside a call, or behind it, since when. Another thread may ask.
  struct Standing {
    const char* call;
    bool inside;
    Clock::time_point since;
  };
  Standing standing() const { return {call_, inside_, since_.load()}; }

  /// A line for each kind and each group.
  std::string table() const;

 private:
  std::atomic<const char*> call_{"start"};
  std::atomic<bool> inside_{false};
  std::atomic<Clock::time_point> since_{Clock::now()};
};

}  // namespace qnext
