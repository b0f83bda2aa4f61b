// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/matmul.hpp"
#include "core/types.hpp"
#include "parallel/row_split.hpp"

namespace qnext {

/// What stands in front of and behind a layer that tensor ranks divide by columns: between layers a
/// rank holds its rows, inside it needs all of them and computes a part of every sum.
///
///     x (rows, D)  all-gather  X (T, D)  the layer with this rank's heads or columns
///     Y_r (T, D), the sum over ranks is Y  reduce-scatter  y (rows, D)
///
/// Backward is the same the other way round: dy is gathered, dX_r is summed. A rank alone has no
/// memory here: its rows are all rows, and nothing is copied.
template <class Storage>
class SharedRows {
 public:
  SharedRows() = default;

  static SharedRows reserve(Arena& arena, const ProcessGrid& grid, const MicrobatchShape& shape,
                            int width);

  const RowSplit& split() const { return split_; }
  bool alone() const { return split_.alone(); }

  /// All rows of the input or, in backward, of the input once more: it is not kept.
  Tensor<const Storage, 2> input(const Exec& exec, const Tensor<const Storage, 2>& mine) const;

  /// All rows of the gradient of the output; valid until the next sum.
  Tensor<const Storage, 2> gradient(const Exec& exec, const Tensor<const Storage, 2>& mine) const;

  /// Where the layer leaves its part of the sum that becomes `mine`: there itself for a rank alone.
  Tensor<Storage, 2> partial(const Tensor<Storage, 2>& mine) const {
    return alone() ? mine : partial_;
  }

  /// mine (rows, D) = the sum of the partial results of all ranks, or += that.
  void sum(const Exec& exec, const Tensor<Storage, 2>& mine, Write write = Write::replace) const;

 private:
  RowSplit split_;
  Tensor<Storage, 2> input_;     // (T, D)
  Tensor<Storage, 2> gradient_;  // (T, D)
  Tensor<Storage, 1> received_;  // (ranks - 1) rows D, the memory of gradient_
  Tensor<Storage, 2> partial_;   // (T, D)
};

}  // namespace qnext
