// SPDX-License-Identifier: Apache-2.0
#include "parallel/traffic.hpp"

#include <fmt/format.h>

namespace qnext {

void Traffic::add(const char* kind, std::int64_t bytes) {
  Sum& sum = kinds[kind];
  ++sum.calls;
  sum.bytes += bytes;
}

std::string Traffic::table() const {
  std::string text =
      fmt::format("{:<52} {:>9} {:>18}\n", "messages of this rank", "calls", "bytes");
  for (const auto& [kind, sum] : kinds) {
    text += fmt::format("{:<52} {:>9} {:>18}\n", kind, sum.calls, sum.bytes);
  }
  return text;
}

}  // namespace qnext
