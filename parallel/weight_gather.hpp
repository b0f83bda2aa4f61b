// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "parallel/shards.hpp"
#include "parallel/transfer_queue.hpp"

#include <cstdint>
#include <vector>

namespace qnext {

/// Gives all ranks the weights of which each has updated its part, group by group in the order of
/// the table, while their caller computes. Takes no memory: the weights arrive where they stay.
class WeightGather {
 public:
  static constexpr int groups_under_way = 4;

  /// `shards` with groups of ranks that carry no other messages.
  WeightGather(const ParameterTable& table, std::vector<Shards> shards);

  /// The own part of every group up to this one is final: called for each of them in its order.
  void start(std::size_t group);

  void progress() { queue_.progress(); }

  /// Until all rows of the table in front of that one are whole.
  void wait_for_rows(std::size_t end);

  /// Until all are.
  void wait() { queue_.wait(); }

 private:
  const ParameterTable& table_;
  std::vector<Shards> shards_;     // (groups)
  std::vector<std::int64_t> job_;  // (groups)  the newest of each, or -1
  TransferQueue queue_{groups_under_way};
};

}  // namespace qnext
