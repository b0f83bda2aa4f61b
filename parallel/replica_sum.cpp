// SPDX-License-Identifier: Apache-2.0
#include "parallel/replica_sum.hpp"

#include "parallel/ordered_sum.hpp"

#include <algorithm>
#include <map>

namespace qnext {
namespace {

// Larger groups go in pieces.
constexpr std::int64_t largest_room = std::int64_t{32} << 20;

template <class Real>
Tensor<Real, 1> numbers(const Tensor<std::byte, 1>& bytes) {
  return Tensor<Real, 1>(reinterpret_cast<Real*>(bytes.data()), bytes.size() / sizeof(Real));
}

}  // namespace

ReplicaSum::ReplicaSum(const ProcessGrid& grid, const ParameterTable& table)
    : table_(table),
      received_(Kokkos::view_alloc("gradients of replicas", Kokkos::WithoutInitializing),
                workspace_bytes(grid, table)) {
  const bool at_an_end =
      grid.place.pipeline == 0 || grid.place.pipeline == grid.degrees.pipeline - 1;
  const Communicator ends = grid.pipeline.split(at_an_end ? 0 : 1);
  std::map<int, Communicator> neighbours;  // by how many they are: libraries have few communicators
  for (const auto& group : table.groups()) {
    const int count = replicas(grid, group);
    if (!group.on_two_stages && count > 1 && !neighbours.contains(count)) {
      neighbours.emplace(count, grid.tensor.split(grid.place.tensor / count).named("replicas"));
    }
    over_.push_back(group.on_two_stages ? ends.named("replicas")
                    : count > 1         ? neighbours.at(count)
                                        : Communicator());
  }
}

int ReplicaSum::replicas(const ProcessGrid& grid, const ParameterTable::Group& group) {
  if (group.on_two_stages) {
    return 2;
  }
  if (group.reduce_over != ReduceOver::data_and_tensor) {
    return 1;
  }
  return group.replicas > 0 ? group.replicas : grid.degrees.tensor;
}

std::int64_t ReplicaSum::workspace_bytes(const ProcessGrid& grid, const ParameterTable& table) {
  std::int64_t most = 0;
  for (const auto& group : table.groups()) {
    if (group.frozen) {
      continue;
    }
    most = std::max(most, ordered_sum_room(replicas(grid, group), group.elements) *
                              size_of(accum_of(group.type)));
  }
  return std::min(most, largest_room);
}

void ReplicaSum::sum(const Exec& exec) const {
  for (std::size_t g = 0; g < over_.size(); ++g) {
    if (!table_.groups()[g].frozen) {
      sum(exec, g, table_.groups()[g].gradients);
    }
  }
}

void ReplicaSum::sum(const Exec& exec, std::size_t g, const Tensor<std::byte, 1>& part) const {
  accum_of(table_.groups()[g].type) == DataType::float64
      ? ordered_sum<double>(exec, over_[g], numbers<double>(part), numbers<double>(received_))
      : ordered_sum<float>(exec, over_[g], numbers<float>(part), numbers<float>(received_));
}

}  // namespace qnext
