// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "core/types.hpp"
#include "parallel/process_grid.hpp"

#include <cstdint>
#include <vector>

namespace qnext {

/// Sums the gradients of parameters that several tensor ranks hold alike: norms, the router, keys
/// and values with fewer heads than ranks. Each of these ranks has seen its own rows or heads; the
/// sum goes in the order of the ranks, once for each step, behind the sum over the copies, so that
/// their tree does not depend on it.
class ReplicaSum {
 public:
  /// Made by all ranks of the grid together.
  ReplicaSum(const ProcessGrid& grid, const ParameterTable& table);

  /// How many neighbours hold the same of a group and are not summed over yet.
  static int replicas(const ProcessGrid& grid, const ParameterTable::Group& group);

  static std::int64_t workspace_bytes(const ProcessGrid& grid, const ParameterTable& table);

  /// The gradients of all groups.
  void sum(const Exec& exec) const;

  /// Some of the gradients of one group: the part of a data rank.
  void sum(const Exec& exec, std::size_t group, const Tensor<std::byte, 1>& part) const;

 private:
  const ParameterTable& table_;
  std::vector<Communicator> over_;  // (groups)
  Tensor<std::byte, 1> received_;
};

}  // namespace qnext
