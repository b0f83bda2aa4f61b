// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/gradient_sum.hpp"
#include "app/run_config.hpp"
#include "app/step_gradients.hpp"
#include "core/parameter.hpp"
#include "layers/chunk.hpp"
#include "parallel/process_grid.hpp"
#include "parallel/shards.hpp"
#include "parallel/tree_sum.hpp"

#include <vector>

namespace qnext {

/// Every rank keeps all gradients until it has added those of its microbatches (ZeRO-1): messages
/// go once in a step, behind the last backward pass of each chunk.
class WholeGradients : public StepGradients {
 public:
  /// Made by all ranks of the grid together.
  WholeGradients(const RunConfig& config, const ProcessGrid& grid, const ParameterTable& table,
                 const std::vector<Chunk>& chunks, const std::vector<Shards>& shards);

  void before_backward(const Exec& exec, int chunk, int microbatch) override;
  void behind_piece(const Exec& exec, int chunk, int microbatch, std::size_t row) override;
  void finish(const Exec& exec) override;

 private:
  const ParameterTable& table_;
  int microbatches_;
  std::vector<GradientSum> sums_;        // (chunks)
  std::vector<std::size_t> unfinished_;  // (chunks)  groups whose gradients still grow
  std::vector<Shards> shards_;           // (groups)  with ranks of their own
  TreeSum over_ranks_;
};

}  // namespace qnext
