// SPDX-License-Identifier: Apache-2.0
#include "parallel/traffic.hpp"

#include <fmt/format.h>

namespace qnext {

void Traffic::count(const std::string& group, const char* kind, std::int64_t bytes) {
  for (Sum* const sum : {&kinds[kind], static_cast<Sum*>(&groups[group])}) {
    ++sum->calls;
    sum->bytes += bytes;
  }
}

void Traffic::departs(const std::string& group) {
  GroupSum& sum = groups[group];
  if (sum.open++ == 0) {
    sum.since = Clock::now();
  }
}

void Traffic::arrives(const std::string& group) {
  GroupSum& sum = groups[group];
  if (--sum.open == 0) {
    sum.under_way += std::chrono::duration<double>(Clock::now() - sum.since).count();
  }
}

Traffic::Inside::Inside(Traffic& traffic, const std::string& group, const char* what)
    : traffic_(traffic), group_(traffic.groups[group]), begin_(Clock::now()) {
  traffic.since_ = begin_;
  traffic.call_ = what;
  traffic.inside_ = true;
}

Traffic::Inside::~Inside() {
  const auto end = Clock::now();
  group_.in_calls += std::chrono::duration<double>(end - begin_).count();
  traffic_.since_ = end;
  traffic_.inside_ = false;
}

Traffic::Call::Call(Traffic& traffic, const std::string& group, const char* kind,
                    std::int64_t bytes)
    : traffic_(traffic), group_(group), inside_(traffic, group, kind) {
  traffic.count(group, kind, bytes);
  traffic.departs(group);
}

Traffic::Call::~Call() {
  traffic_.arrives(group_);
}

std::string Traffic::table() const {
  std::string text =
      fmt::format("{:<52} {:>9} {:>18}\n", "messages of this rank", "calls", "bytes");
  for (const auto& [kind, sum] : kinds) {
    text += fmt::format("{:<52} {:>9} {:>18}\n", kind, sum.calls, sum.bytes);
  }
  text += fmt::format("\n{:<26} {:>9} {:>18} {:>12} {:>12} {:>8}\n", "messages by group", "calls",
                      "bytes", "s under way", "s in calls", "hidden");
  for (const auto& [group, sum] : groups) {
    text += fmt::format("{:<26} {:>9} {:>18} {:>12.3f} {:>12.3f} {:>7.1f}%\n", "group: " + group,
                        sum.calls, sum.bytes, sum.under_way, sum.in_calls, 100.0 * sum.hidden());
  }
  return text;
}

}  // namespace qnext
