// SPDX-License-Identifier: Apache-2.0
#include "io/text/word_cache.hpp"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace qnext {
namespace {

constexpr std::size_t slots = 1 << 17;  // 3 MB, of which at most half is used

}  // namespace

WordCache::WordCache() : slots_(slots) {}

std::uint64_t WordCache::hash(std::string_view word) {
  return XXH3_64bits(word.data(), word.size());
}

std::span<const int> WordCache::find(std::string_view word, std::uint64_t hash) const {
  for (std::size_t i = hash % slots;; i = (i + 1) % slots) {
    const Slot& slot = slots_[i];
    if (slot.count == 0) {
      return {};
    }
    if (slot.hash == hash && slot.bytes == word.size() &&
        std::memcmp(words_.data() + slot.word, word.data(), word.size()) == 0) {
      return {ids_.data() + slot.ids, slot.count};
    }
  }
}

void WordCache::add(std::string_view word, std::uint64_t hash, std::span<const int> ids) {
  if (word.size() > longest || ids.empty()) {
    return;
  }
  if (used_ == slots / 2) {
    std::fill(slots_.begin(), slots_.end(), Slot{});
    words_.clear();
    ids_.clear();
    used_ = 0;
  }
  std::size_t i = hash % slots;
  while (slots_[i].count != 0) {
    i = (i + 1) % slots;
  }
  slots_[i] = {hash, static_cast<std::uint32_t>(words_.size()),
               static_cast<std::uint32_t>(ids_.size()), static_cast<std::uint16_t>(word.size()),
               static_cast<std::uint16_t>(ids.size())};
  words_.insert(words_.end(), word.begin(), word.end());
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ++used_;
}

}  // namespace qnext
