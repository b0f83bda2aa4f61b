// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "core/types.hpp"
#include "parallel/process_grid.hpp"
#include "parallel/shards.hpp"
#include "parallel/transfer_queue.hpp"

#include <cstdint>
#include <functional>

namespace qnext {

/// Sums flat buffers over ranks in the order of core/pairwise_tree.hpp, which no library of
/// collectives promises, while their caller computes: each rank is sent its part by all others and
/// adds them itself. A rank sends and receives (ranks - 1) / ranks of a buffer, the least that is
/// possible.
///
///     start(a); compute; progress(); start(b); compute; progress(); ... wait()
class TreeSum {
 public:
  /// Buffers go in pieces of about `bucket` bytes, of which so many are under way at most. A piece
  /// holds `bucket` / ranks bytes of each part, in whole blocks, and one block more, because parts
  /// differ by a block.
  static constexpr int pieces_under_way = 4;
  TreeSum(std::int64_t workspace_bytes, std::int64_t bucket);

  /// For parts of at most that many bytes.
  static std::int64_t workspace_bytes(int ranks, std::int64_t largest_part_bytes,
                                      std::int64_t bucket);

  /// For the gradients of each group of a table.
  static std::int64_t workspace_bytes(const ProcessGrid& grid, const ParameterTable& table,
                                      std::int64_t bucket);

  /// Pieces that a buffer goes in, whose largest part has so many bytes.
  static std::int64_t pieces(int ranks, std::int64_t largest_part_bytes, std::int64_t bucket);

  /// The part of this rank will be the sum over all ranks, and the rest of `values` void. Kernels
  /// on `exec` have filled `values`, or will in front of what is put there next.
  /// `summed` is called when the kernels of this are on `exec`. Returns what wait takes, or -1.
  template <class Real>
  std::int64_t start(const Exec& exec, const Tensor<Real, 1>& values, const Shards& shards,
                     const std::function<void()>& summed = {});

  /// The same of numbers of that type, which is float or double.
  std::int64_t start(const Exec& exec, const Tensor<std::byte, 1>& values, DataType type,
                     const Shards& shards, const std::function<void()>& summed = {});

  /// Adds what has arrived and sends what waits.
  void progress() { queue_.progress(); }

  /// Until all sums are made, or being made on `exec`; or those up to that one.
  void wait() { queue_.wait(); }
  void wait(std::int64_t job) { queue_.wait(job); }

 private:
  Tensor<std::byte, 1> received_;  // in each of the slots a piece of each other rank
  std::int64_t bucket_;
  TransferQueue queue_{pieces_under_way};
};

}  // namespace qnext
