// SPDX-License-Identifier: Apache-2.0
#include "io/record.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace qnext {

std::string to_string(const RecordValue& value) {
  return std::visit([](const auto& content) { return fmt::format("{}", content); }, value);
}

std::vector<std::string> Record::differences(const Record& here) const {
  std::vector<std::string> lines;
  for (const auto& [name, value] : values_) {
    const auto it = here.values_.find(name);
    if (it == here.values_.end()) {
      lines.push_back(name + ": " + to_string(value) + " there, absent here");
    } else if (it->second != value) {
      lines.push_back(name + ": " + to_string(value) + " there, " + to_string(it->second) +
                      " here");
    }
  }
  for (const auto& [name, value] : here.values_) {
    if (!has(name)) {
      lines.push_back(name + ": absent there, " + to_string(value) + " here");
    }
  }
  return lines;
}

}  // namespace qnext
