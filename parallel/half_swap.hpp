// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"
#include "parallel/communicator.hpp"

namespace qnext {

/// The second halves of pieces change places: that of rank r with that of its mirror, the rank as
/// far from the end as r is from the begin. Done twice it changes nothing.
class HalfSwap {
 public:
  /// `group` holds pieces of `piece` rows of each sequence.
  HalfSwap(const Communicator& group, int piece) : group_(group), piece_(piece) {}

  /// Numbers that the buffer of a swap of rows (T, W) has room for.
  static std::int64_t room(std::int64_t rows, int piece, std::int64_t width);

  /// rows (T, W), T a multiple of the piece.
  template <class T>
  void swap(const Exec& exec, const Tensor<T, 2>& rows, const Tensor<T, 1>& buffer) const;

 private:
  Communicator group_;
  int piece_;
};

}  // namespace qnext
