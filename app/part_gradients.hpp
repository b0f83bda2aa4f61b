// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/gradient_window.hpp"
#include "app/run_config.hpp"
#include "app/step_gradients.hpp"
#include "core/parameter.hpp"
#include "layers/adamw.hpp"
#include "parallel/process_grid.hpp"
#include "parallel/shards.hpp"
#include "parallel/tree_sum.hpp"

#include <cstdint>
#include <vector>

namespace qnext {

/// Every rank keeps the sums of its own part alone (ZeRO-2, Rajbhandari et al. 2020): the gradients
/// of each microbatch are summed over the ranks as soon as backward has made them, in a window of
/// few layers, and added to those of the microbatches before by the rank that owns them.
///
/// Rank r of R takes the microbatches r, R + r, 2 R + r, ... of the step, so that what is summed
/// over ranks is a subtree of the tree over the step, if both numbers are powers of two: partial
/// sums wait on a stack of parts, and the sums have the bits of ranks that keep everything, where
/// these sum over data ranks alone.
class PartGradients : public StepGradients {
 public:
  /// The table has its gradients in `window`; `parts` of the optimizer receive the sums. Made by
  /// all ranks of the grid together.
  PartGradients(const RunConfig& config, const ProcessGrid& grid, const ParameterTable& table,
                GradientWindow window, const AdamW& optimizer);

  void before_backward(const Exec& exec, int chunk, int microbatch) override;
  void behind_piece(const Exec& exec, int chunk, int microbatch, std::size_t row) override;
  void finish(const Exec& exec) override;

 private:
  struct Part {
    std::vector<Tensor<std::byte, 1>> stack;
    int waiting = 0;        // levels in use
    std::int64_t job = -1;  // the newest of over_ranks_ that reads the window
  };

  void clear(const Exec& exec, std::size_t group);
  void add(const Exec& exec, std::size_t group, int microbatch);

  const ParameterTable& table_;
  const AdamW& optimizer_;
  bool tree_;
  int microbatches_;
  GradientWindow window_;
  std::vector<Part> parts_;                       // (groups)
  std::vector<std::vector<std::size_t>> groups_;  // (chunks)
  int piece_ = 0;                                 // of the backward pass that runs
  std::vector<Shards> shards_;                    // (groups)  with ranks of their own
  TreeSum over_ranks_;
};

}  // namespace qnext
