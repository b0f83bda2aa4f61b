// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "core/types.hpp"

#include <cstdint>
#include <map>
#include <vector>

namespace qnext {

/// In which order the gradients of the microbatches of a step are added.
enum class GradientOrder { tree, running };

/// Sums the gradients of the microbatches of one step in the table's own buffers, for the
/// parameters of one chunk of a pipeline: each chunk takes the microbatches in their order, between
/// those of other chunks.
///
/// `tree` is that of core/pairwise_tree.hpp over the microbatches of this rank, which parallel/
/// tree_sum continues over ranks: the sum does not depend on which rank computed which of them, if
/// a power of two of ranks own consecutive ones. Partial sums wait on a stack. `running` adds them
/// one after the other and needs none.
///
///     before_microbatch(0); backward; before_microbatch(1); backward; ... finish(group) of each
class GradientSum {
 public:
  GradientSum(const ParameterTable& table, GradientOrder order, int microbatches, int chunk = 0);

  /// How many copies of the gradients the stack holds at most, and their bytes.
  static int levels(GradientOrder order, int microbatches);
  static std::int64_t stack_bytes(const ParameterTable& table, GradientOrder order,
                                  int microbatches);

  /// Before the backward pass of microbatch m: puts away the gradients of microbatch m - 1 and
  /// clears them.
  void before_microbatch(const Exec& exec, int m);

  /// The groups of the table that this sums, in its order.
  const std::vector<std::size_t>& groups() const { return groups_; }

  /// The gradients of one group become the sum over the step, in the last backward pass or behind
  /// it.
  void finish(const Exec& exec, std::size_t group) const;

 private:
  using Level = std::map<std::size_t, Tensor<std::byte, 1>>;  // a copy of the gradients of groups

  void add(const Exec& exec, std::size_t group, int level) const;

  const ParameterTable& table_;
  GradientOrder order_;
  int microbatches_;
  std::vector<std::size_t> groups_;
  std::vector<Level> stack_;
  int waiting_ = 0;  // levels in use
};

}  // namespace qnext
