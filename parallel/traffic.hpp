// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace qnext {

/// What one rank has said to others, by kind of call: shown by `--profile`.
struct Traffic {
  struct Sum {
    std::int64_t calls = 0;
    std::int64_t bytes = 0;  // of this rank's own data that other ranks get to see
  };
  std::map<std::string, Sum> kinds;

  void add(const char* kind, std::int64_t bytes);

  /// A line for each kind.
  std::string table() const;
};

}  // namespace qnext
