// SPDX-License-Identifier: Apache-2.0
#include "io/text/byte_pair_encoding.hpp"

#include "core/require.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace qnext {
namespace {

std::uint64_t pair_of(int left, int right) {
  return (static_cast<std::uint64_t>(left) << 32) | static_cast<std::uint32_t>(right);
}

}  // namespace

MergeTable::MergeTable(const std::array<int, 256>& bytes, const std::vector<Merge>& merges,
                       std::string_view where)
    : bytes_(bytes),
      slots_(std::bit_ceil(2 * merges.size() + 2)),
      shift_(64 - std::countr_zero(slots_.size())) {
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    if (find(merge.left, merge.right).rank >= 0) {
      throw InputError(fmt::format("{}: merges {} and {} join the same two tokens", where,
                                   find(merge.left, merge.right).rank, rank));
    }
    const std::uint64_t pair = pair_of(merge.left, merge.right);
    std::size_t slot = first_slot(pair);
    while (slots_[slot].pair != empty) {
      slot = (slot + 1) & (slots_.size() - 1);
    }
    slots_[slot] = {pair, {static_cast<int>(rank), merge.merged}};
  }
}

std::size_t MergeTable::first_slot(std::uint64_t pair) const {
  return static_cast<std::size_t>((pair * 0x9E3779B97F4A7C15u) >> shift_);
}

MergeTable::Found MergeTable::find(int left, int right) const {
  const std::uint64_t pair = pair_of(left, right);
  for (std::size_t slot = first_slot(pair);; slot = (slot + 1) & (slots_.size() - 1)) {
    if (slots_[slot].pair == pair) {
      return slots_[slot].found;
    }
    if (slots_[slot].pair == empty) {
      return {};
    }
  }
}

void BytePairEncoding::propose(int at) {
  const int next = at < 0 ? -1 : symbols_[at].next;
  if (next < 0) {
    return;
  }
  const int left = symbols_[at].id, right = symbols_[next].id;
  const MergeTable::Found found = merges_->find(left, right);
  if (found.rank >= 0) {
    candidates_.push_back({found.rank, at, left, right, found.merged});
    std::push_heap(candidates_.begin(), candidates_.end());
  }
}

// The right symbol goes, the left one becomes both. A candidate whose symbols are no longer what
// they were is void: the id of a symbol that went is -1.
void BytePairEncoding::merge(const Candidate& candidate) {
  Symbol& left = symbols_[candidate.at];
  if (left.id != candidate.left || left.next < 0 || symbols_[left.next].id != candidate.right) {
    return;
  }
  Symbol& right = symbols_[left.next];
  left.id = candidate.merged;
  left.next = right.next;
  right.id = -1;
  if (left.next >= 0) {
    symbols_[left.next].previous = candidate.at;
  }
  propose(left.previous);
  propose(candidate.at);
}

void BytePairEncoding::encode(std::string_view word, std::vector<int>& ids) {
  const int count = static_cast<int>(word.size());
  symbols_.clear();
  candidates_.clear();
  for (int i = 0; i < count; ++i) {
    const int id = merges_->token_of_byte(static_cast<unsigned char>(word[i]));
    symbols_.push_back({id, i - 1, i + 1 < count ? i + 1 : -1});
  }
  for (int i = 0; i + 1 < count; ++i) {
    propose(i);
  }
  while (!candidates_.empty()) {
    std::pop_heap(candidates_.begin(), candidates_.end());
    const Candidate best = candidates_.back();
    candidates_.pop_back();
    merge(best);
  }
  for (const Symbol& symbol : symbols_) {
    if (symbol.id >= 0) {
      ids.push_back(symbol.id);
    }
  }
}

}  // namespace qnext
