// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "parallel/communicator.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

/// How many ranks share what. Dense parts of a model see tensor x context x pipeline x data;
/// experts are folded over the same ranks: `expert` divides tensor x context x data.
struct Degrees {
  int tensor = 1;
  int context = 1;
  int pipeline = 1;
  int expert = 1;
  int data = 1;

  int ranks() const { return tensor * context * pipeline * data; }
};

/// The place of a rank of the job: tensor runs fastest, then context, data and pipeline, so that
/// ranks which talk most are neighbours. `expert` is the place among `degrees.expert` consecutive
/// ranks of tensor x context x data.
Degrees place_of(const Degrees& degrees, int rank);

/// How all ranks of the job share the work, and the place of this one. A value, built once from the
/// deck and passed in; nothing else in the program asks for a rank.
struct ProcessGrid {
  Degrees degrees;
  Degrees place{0, 0, 0, 0, 0};
  Communicator world;
  Communicator pipeline;        // the ranks with this place in each stage, in the order of stages
  Communicator stage;           // the ranks with the same layers: tensor x context x data
  Communicator tensor;          // the ranks that hold other parts of the same layers
  Communicator context;         // the ranks that take other pieces of the same sequences
  Communicator data;            // the ranks that take other sequences, in all else like this one
  Communicator copies;          // context x data: the ranks that hold the same dense weights
  Communicator expert;          // consecutive ranks of a stage that share the experts out
  Communicator beside_experts;  // the ranks of a stage that hold the same experts, first those of
                                // the lowest tensor place

  ProcessGrid() = default;

  /// Splits all ranks of the job. Their number is that of the degrees; `expert` divides tensor x
  /// context x data.
  ProcessGrid(const Degrees& degrees, const Communicator& world);

  /// Degrees alone, for arithmetic where there are no such ranks: a plan.
  explicit ProcessGrid(const Degrees& degrees) : degrees(degrees) {}

  /// What this rank holds of a weight that tensor ranks divide along an axis, where `replicas`
  /// neighbours hold the same.
  Shard tensor_part(const std::vector<std::int64_t>& extents, int axis, int replicas = 1) const {
    return Shard::part(extents, axis, place.tensor / replicas, degrees.tensor / replicas);
  }

  /// The same where the first axis is made of blocks that are divided each: a box of each block.
  Shard tensor_parts(const std::vector<std::int64_t>& blocks,
                     const std::vector<std::int64_t>& other_extents) const;

  /// A parameter of which `replicas` neighbours among the tensor ranks hold the same, 0: all of
  /// them, and see different rows or heads. The first of them counts it.
  Parameter replicated(Parameter parameter, int replicas = 0) const;
  /// What this rank holds of the stacked matrices of all experts, whose number `expert` divides.
  Shard expert_part(const std::vector<std::int64_t>& extents) const;

  /// The ranks over which such gradients are summed in the tree and the optimizer is shared.
  const Communicator& over(ReduceOver ranks) const {
    return ranks == ReduceOver::data_beside_experts ? beside_experts : copies;
  }

  /// How many these are, also in a plan.
  int ranks_over(ReduceOver ranks) const {
    const int copies_of_dense = degrees.context * degrees.data;
    return ranks == ReduceOver::data_beside_experts
               ? degrees.tensor * copies_of_dense / degrees.expert
               : copies_of_dense;
  }

  /// Whether a sum over the stage has this rank's numbers of a parameter, of which it knows all
  /// elements that it holds: one of those that hold the same.
  bool counts(const Parameter& parameter) const {
    return parameter.owner && over(parameter.reduce_over).first();
  }
};

/// A line for each rank of the job: its host and its place.
std::string rank_map(const ProcessGrid& grid);

}  // namespace qnext
