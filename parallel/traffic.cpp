// SPDX-License-Identifier: Apache-2.0
#include "parallel/traffic.hpp"

#include <fmt/format.h>

namespace qnext {

Traffic::Call::Call(Traffic& traffic, const std::string& group, const char* kind,
                    std::int64_t bytes)
    : traffic_(traffic) {
  for (Sum* const sum : {&traffic.kinds[kind], &traffic.groups[group]}) {
    ++sum->calls;
    sum->bytes += bytes;
  }
  traffic.since_ = std::chrono::steady_clock::now();
  traffic.call_ = kind;
  traffic.inside_ = true;
}

Traffic::Call::~Call() {
  traffic_.since_ = std::chrono::steady_clock::now();
  traffic_.inside_ = false;
}

std::string Traffic::table() const {
  std::string text =
      fmt::format("{:<52} {:>9} {:>18}\n", "messages of this rank", "calls", "bytes");
  for (const auto& [kind, sum] : kinds) {
    text += fmt::format("{:<52} {:>9} {:>18}\n", kind, sum.calls, sum.bytes);
  }
  for (const auto& [group, sum] : groups) {
    text += fmt::format("{:<52} {:>9} {:>18}\n", "to ranks of: " + group, sum.calls, sum.bytes);
  }
  return text;
}

}  // namespace qnext
