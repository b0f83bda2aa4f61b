// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace qnext {

/// The tokens of words that came before. Few words make up most of a text. When it is full it
/// begins anew; what it answers does not depend on that.
class WordCache {
 public:
  static constexpr std::size_t longest = 64;  // bytes of a word that is kept

  WordCache();

  /// The tokens of a word, as long as nothing is added; no data() where the word is not known.
  std::span<const int> find(std::string_view word, std::uint64_t hash) const;

  /// Of a word that `find` did not know.
  void add(std::string_view word, std::uint64_t hash, std::span<const int> ids);

  static std::uint64_t hash(std::string_view word);

 private:
  struct Slot {
    std::uint64_t hash = 0;
    std::uint32_t word = 0;  // where it begins in words_
    std::uint32_t ids = 0;   // where they begin in ids_
    std::uint16_t bytes = 0;
    std::uint16_t count = 0;  // of ids; 0: the slot is free
  };

  std::vector<Slot> slots_;
  std::vector<char> words_;
  std::vector<int> ids_;
  std::size_t used_ = 0;
};

}  // namespace qnext
