// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>

namespace qnext {

/// The order in which sums of a step are made, whoever makes them. A sum over n terms is that over
/// the first half of them, the longer one, plus that over the second. So the tree over all terms is
/// the tree over ranks of the trees of each, if a power of two of ranks own equally many
/// consecutive terms. Terms come one after the other and partial sums wait on a stack.

/// How many times, after term i of n was put on the stack, its two top entries are added: as many
/// sums end with this term.
constexpr int merges_after(int i, int n) {
  int merges = 0;
  for (int begin = 0, end = n; end - begin > 1;) {
    const int middle = end - (end - begin) / 2;
    if (i < middle) {
      end = middle;
      merges = 0;
    } else {
      begin = middle;
      ++merges;
    }
  }
  return merges;
}

/// How many entries wait on the stack at most while another one is being made: first halves.
constexpr int waiting_sums(int n) {
  return static_cast<int>(std::bit_width(static_cast<unsigned>(n))) - 1;
}

}  // namespace qnext
