// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "parallel/process_grid.hpp"
#include "parallel/replica_sum.hpp"
#include "parallel/shards.hpp"
#include "parallel/tree_sum.hpp"

#include <cstdint>
#include <vector>

namespace qnext::test {

/// The gradients of the table become their sums over all ranks of a stage, as in a training step,
/// but whole on each rank.
inline void sum_gradients(const ProcessGrid& grid, const ParameterTable& table) {
  const std::vector<Shards> shards = make_shards(table, grid);
  constexpr std::int64_t bucket = std::int64_t{25} << 20;
  TreeSum tree(TreeSum::workspace_bytes(grid, table, bucket), bucket);
  const ReplicaSum replicas(grid, table);
  for (std::size_t g = 0; g < shards.size(); ++g) {
    const auto& group = table.groups()[g];
    const auto sum = [&](auto zero) {
      using Real = decltype(zero);
      const Tensor<Real, 1> gradients(reinterpret_cast<Real*>(group.gradients.data()),
                                      group.elements);
      tree.start<Real>(Exec{}, gradients, shards[g]);
      tree.wait();
      const Tensor<std::byte, 1> part(
          reinterpret_cast<std::byte*>(gradients.data() + shards[g].begin()),
          shards[g].elements() * sizeof(Real));
      replicas.sum(Exec{}, g, part);
      shards[g].over.all_gather_parts(gradients, shards[g].borders);
    };
    accum_of(group.type) == DataType::float64 ? sum(double{}) : sum(float{});
  }
}

}  // namespace qnext::test
