// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

#include <vector>

namespace qnext {

class ContextRing;

/// The borders between the documents of one microbatch, whose tokens lie in one row of length T.
/// No layer ever looks across a border. Where context ranks hold pieces of each sequence, the first
/// document of a piece may go on from the left neighbour and the last one on the right neighbour:
/// `arrives` and `leaves` say where states travel (core/context_share.hpp).
struct Documents {
  Tensor<const int, 1> begin;     // (N + 1)  document n owns the tokens begin(n) ... begin(n+1) - 1
  Tensor<const int, 1> position;  // (T)      place of a token in its document: RoPE, labels
  Tensor<const int, 1> document;  // (T)      which document a token belongs to
  int count = 0;                  // N
  int longest = 0;                // tokens of the longest document
  int sequences = 1;              // rows of the deck's `sequence` tokens that make up the T tokens

  // (N)  row of the states that a document begins with, or leaves behind; -1: it begins from
  // nothing, or ends. Empty: row n for document n. Where a step keeps the state behind each token,
  // that of token i of a document goes to row leaves(n) + i.
  Tensor<const int, 1> arrives;
  Tensor<const int, 1> leaves;
  // (N)  row of the cache of keys and values of a document. Empty: row n.
  Tensor<const int, 1> cached;
  const ContextRing* ring = nullptr;  // which queries meet which keys, or null: all are here

  KOKKOS_INLINE_FUNCTION int initial_row(int n) const {
    return arrives.extent(0) == 0 ? n : arrives(n);
  }
  KOKKOS_INLINE_FUNCTION int final_row(int n) const {
    return leaves.extent(0) == 0 ? n : leaves(n);
  }
  KOKKOS_INLINE_FUNCTION int cache_row(int n) const {
    return cached.extent(0) == 0 ? n : cached(n);
  }
};

/// Which states a step leaves: the one behind the last token of a document, or one behind each
/// token, so that a document can go on behind any of them.
enum class Keep { last, each };

/// Documents of the given lengths, none of them zero, one after the other. `first_position` (N, or
/// empty: all zero) is where each of them starts: a decoded document goes on at its own length.
Documents make_documents(const std::vector<int>& lengths, int sequences = 1,
                         const std::vector<int>& first_position = {});

/// Upper bounds that sizes of activations are planned with.
struct MicrobatchShape {
  int tokens = 0;         // T
  int documents = 0;      // N, at most
  int sequences = 1;      // rows
  bool decoding = false;  // few tokens of each document, behind a state
};

}  // namespace qnext
