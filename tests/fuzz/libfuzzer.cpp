// SPDX-License-Identifier: Apache-2.0
//
// Beside libFuzzer's main: seeds and words of the target without a folder of files.
#include "tests/fuzz/target.hpp"

#include <algorithm>
#include <cstring>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  static const auto seeds = qnext::fuzz::seeds(), words = qnext::fuzz::words();
  constexpr unsigned rarely = 64;
  if (size <= 1 || seed % rarely == 0) {
    const std::string& start = seeds[seed / rarely % seeds.size()];
    size = std::min(start.size(), most);
    std::memcpy(data, start.data(), size);
  } else if (seed % rarely < 8 && !words.empty()) {
    const std::string& word = words[seed / rarely % words.size()];
    const std::size_t at = seed / 4096 % (size + 1), room = std::min(word.size(), size - at);
    std::memcpy(data + at, word.data(), room);
  }
  return LLVMFuzzerMutate(data, size, most);
}
