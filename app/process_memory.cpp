// SPDX-License-Identifier: Apache-2.0
#include "app/process_memory.hpp"

#include <fstream>
#include <limits>
#include <string>

namespace qnext {
namespace {

// One of the lines "VmHWM:    12345 kB".
std::int64_t status_bytes(const char* name) {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word == name) {
      std::int64_t kibibytes = 0;
      status >> kibibytes;
      return kibibytes * 1024;
    }
    status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

}  // namespace

std::int64_t peak_resident_bytes() {
  return status_bytes("VmHWM:");
}

std::int64_t resident_bytes() {
  return status_bytes("VmRSS:");
}

}  // namespace qnext
