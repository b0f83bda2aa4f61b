// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace qnext {

/// How many ranks share what. A value, built once from the deck and passed in; nothing in the
/// program asks for a global rank.
struct Degrees {
  int tensor = 1;
  int context = 1;
  int pipeline = 1;
  int expert = 1;
  int data = 1;
};

/// The place of this rank in the grid of all ranks.
struct ProcessGrid {
  Degrees degrees;
  Degrees place{0, 0, 0, 0, 0};

  int ranks() const { return degrees.tensor * degrees.context * degrees.pipeline * degrees.data; }
};

}  // namespace qnext
