// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "core/types.hpp"
#include "parallel/process_grid.hpp"
#include "parallel/shards.hpp"

#include <cstdint>

namespace qnext {

/// Sums flat buffers over ranks in the order of core/pairwise_tree.hpp, which no library of
/// collectives promises: each rank is sent its part by all others and adds them itself. A rank
/// sends and receives (ranks - 1) / ranks of the buffer, the least that is possible.
class TreeSum {
 public:
  /// Parts come in pieces, of all ranks together at most `room` bytes or one block of each.
  static constexpr std::int64_t room = std::int64_t{32} << 20;
  explicit TreeSum(std::int64_t workspace_bytes);

  /// For parts of at most that many bytes.
  static std::int64_t workspace_bytes(int ranks, std::int64_t largest_part_bytes);

  /// For the gradients of each group of a table.
  static std::int64_t workspace_bytes(const ProcessGrid& grid, const ParameterTable& table);

  /// The part of this rank becomes the sum over all ranks; the rest of `values` is void then.
  template <class Real>
  void sum_parts(const Exec& exec, const Tensor<Real, 1>& values, const Shards& shards) const;

 private:
  Tensor<std::byte, 1> received_;  // a piece of each other rank
};

}  // namespace qnext
