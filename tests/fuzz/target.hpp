// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/require.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

/// What is fuzzed: a reader of bytes that somebody hostile made. It may accept them or refuse them
/// with the errors below; everything else (another exception, a sanitizer, a signal) ends the
/// program.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace qnext::fuzz {

/// Each target says what mutation starts from, and words that it puts in.
std::vector<std::string> seeds();
std::vector<std::string> words();

/// Runs a reader, whose refusals are what a user or a disk gets to read.
template <class Read>
int refuse_or_accept(const Read& read) {
  try {
    read();
  } catch (const InputError&) {
  } catch (const BadNumberError&) {
  } catch (const EnvironmentError&) {
  }
  return 0;
}

/// A file in memory that has a path.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(memfd_create("fuzz", MFD_CLOEXEC)) {}
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { close(descriptor_); }

  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  void write(const void* data, std::size_t size) const {
    if (ftruncate(descriptor_, 0) != 0 ||
        pwrite(descriptor_, data, size, 0) != static_cast<ssize_t>(size)) {
      std::abort();
    }
  }

 private:
  int descriptor_;
};

}  // namespace qnext::fuzz
