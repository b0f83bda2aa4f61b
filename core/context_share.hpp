// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/documents.hpp"
#include "core/types.hpp"

#include <memory>
#include <vector>

namespace qnext {

/// Runs of queries and of keys of the same document, one line for each pair. No two lines share a
/// query or a key.
struct RunPairs {
  /// (P, 5)  first query, queries, first key, keys; how many tokens the first key stands behind the
  /// first query (0 or less)
  Tensor<const int, 2> runs;
  int count = 0;            // P
  int longest_queries = 0;  // of any line
  int longest_keys = 0;
};

/// Which queries meet which keys when the keys of all context ranks pass by, so that every rank has
/// the same work in every step although a query sees earlier keys alone.
///
/// A sequence is cut in two halves for each of the C ranks, 0 ... 2C - 1. For the time of the
/// attention rank r takes half 2r, its own first one, and half 2(C - 1 - r) + 1, the second one of
/// its mirror C - 1 - r: numbers whose sum is 2C - 1. Its rows then are, in every sequence, the
/// `first_half` tokens of the one and the rest of the other. In step i the keys of rank r - i
/// (modulo C) are here.
class ContextRing {
 public:
  int steps() const { return static_cast<int>(pairs_.size()); }

  /// One kernel for each entry, in order; none where no document is on both sides.
  const std::vector<RunPairs>& pairs(int step) const { return pairs_[step]; }

 private:
  friend struct ContextShare;
  std::vector<std::vector<RunPairs>> pairs_;
};

/// What one of C context ranks holds of a microbatch: a C-th of every sequence.
struct ContextShare {
  Documents documents;  // points to `ring`
  std::shared_ptr<const ContextRing> ring;
  std::vector<int> tokens;  // (T / C)  places of its tokens among all T, in order

  /// `lengths` are those of the documents of all T tokens, none of which crosses the border of a
  /// sequence; C divides the length of a sequence.
  static ContextShare make(const std::vector<int>& lengths, int sequences, int ranks, int rank);
};

/// Tokens of the first half of a piece.
constexpr int first_half(int piece) {
  return (piece + 1) / 2;
}

}  // namespace qnext
