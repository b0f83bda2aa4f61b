// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qnext {

/// The rows of a table that one piece of a backward pass adds to, for each of its pieces in turn.
using BackwardPieces = std::vector<std::vector<std::size_t>>;

/// One buffer for the gradients of all groups, which hold their place in it from the first piece of
/// a backward pass that adds to them until they are sent: those of few layers at a time. Arithmetic
/// alone.
struct GradientWindow {
  /// Pieces that a group keeps its place behind its last one, so that its messages need not be
  /// waited for.
  static constexpr int pieces_on_the_way = 2;

  /// A group in the backward pass of its chunk.
  struct Place {
    std::int64_t begin = 0, bytes = 0;
    int first_piece = -1, last_piece = -1;
    std::vector<std::size_t> shares;  // groups with a part of this memory, itself included
  };
  std::vector<Place> groups;
  std::int64_t bytes = 0;

  /// `chunks`: the pieces of each chunk of the table.
  GradientWindow(const ParameterTable& table, const std::vector<BackwardPieces>& chunks);

  /// Where each group begins.
  std::vector<std::int64_t> begins() const;
};

}  // namespace qnext
