// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "layers/kernels/capacity.hpp"
#include "parallel/process_grid.hpp"

namespace qnext {

/// Tells tensor and context ranks, which share the sequences of a microbatch, what the others
/// chose: an expert takes its capacity from all of them, whatever their number.
///
/// Counts of every sequence and expert travel and, where the most probable choices are kept, one
/// weight for each choice: T K numbers of the T tokens of all ranks.
template <class Real>
class CapacityOverRanks {
 public:
  struct Work {
    Tensor<int, 3> count;    // (R, S, E)
    Tensor<int, 2> offset;   // (R, E + 1)
    Tensor<Real, 1> weight;  // (T K)  of all ranks; empty where positions decide
    int tokens = 0;          // T
  };

  CapacityOverRanks(const Capacity& capacity, const ProcessGrid& grid)
      : capacity_(capacity), grid_(grid) {}

  /// Nothing for experts that drop nothing.
  Work reserve_work(Arena& arena, const MicrobatchShape& shape, int experts,
                    int experts_per_token) const;

  /// Drops what is beyond the capacity. count (S, E) and `rows` are those of this rank.
  void drop(const Exec& exec, const Tensor<const int, 2>& count, const Routing<Real>& routing,
            const ExpertRows& rows, const Work& work) const;

 private:
  Capacity capacity_;
  ProcessGrid grid_;
};

}  // namespace qnext
