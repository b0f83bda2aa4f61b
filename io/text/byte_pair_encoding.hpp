// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace qnext {

/// Two neighbours that become one token; earlier merges of a list come first.
struct Merge {
  int left, right, merged;  // ids
};

/// The merges of a vocabulary, for looking up.
class MergeTable {
 public:
  /// `bytes`: the token of each byte. Throws InputError, with `where`, for a pair that comes twice.
  MergeTable(const std::array<int, 256>& bytes, const std::vector<Merge>& merges,
             std::string_view where);

  int token_of_byte(unsigned char byte) const { return bytes_[byte]; }

  struct Found {
    int rank = -1;  // of no merge
    int merged = 0;
  };
  Found find(int left, int right) const;

 private:
  struct Slot {
    std::uint64_t pair = empty;
    Found found;
  };
  static constexpr std::uint64_t empty = ~std::uint64_t{0};

  std::size_t first_slot(std::uint64_t pair) const;

  std::array<int, 256> bytes_;
  std::vector<Slot> slots_;  // a power of two, at least half of them empty
  int shift_;
};

/// Splits words into tokens: of all neighbours the pair with the earliest merge becomes one, the
/// leftmost where it stands several times, until no pair is left that has one. Keeps its memory
/// between words; a word of n bytes takes O(n log n).
class BytePairEncoding {
 public:
  explicit BytePairEncoding(const MergeTable& merges) : merges_(&merges) {}

  /// Appends the tokens of a word.
  void encode(std::string_view word, std::vector<int>& ids);

 private:
  struct Symbol {
    int id;
    int previous, next;  // -1 at the ends
  };
  struct Candidate {
    int rank, at;
    int left, right;  // what stood at `at` and behind it when it was found
    int merged;
    bool operator<(const Candidate& other) const {  // the last of a heap comes first
      return std::pair(rank, at) > std::pair(other.rank, other.at);
    }
  };

  void propose(int at);
  void merge(const Candidate& candidate);

  const MergeTable* merges_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> candidates_;  // a heap
};

}  // namespace qnext
