// SPDX-License-Identifier: Apache-2.0
#include "app/whole_gradients.hpp"

#include "core/phase.hpp"

namespace qnext {

WholeGradients::WholeGradients(const RunConfig& config, const ProcessGrid& grid,
                               const ParameterTable& table, const std::vector<Chunk>& chunks,
                               const std::vector<Shards>& shards)
    : table_(table),
      microbatches_(config.microbatches_of_rank()),
      unfinished_(chunks.size()),
      shards_(named_apart(shards, table, grid, "gradients")),
      over_ranks_(TreeSum::workspace_bytes(grid, table, config.bucket), config.bucket) {
  for (const Chunk& chunk : chunks) {
    sums_.emplace_back(table, config.run.gradient_order, microbatches_, chunk.place);
  }
}

void WholeGradients::before_backward(const Exec& exec, int chunk, int microbatch) {
  const Phase phase("gradient sum");
  sums_[chunk].before_microbatch(exec, microbatch);
  unfinished_[chunk] = sums_[chunk].groups().size();
}

// In the last backward pass of a chunk gradients are final from the last row on: the groups that
// have none in front of this one start.
void WholeGradients::behind_piece(const Exec& exec, int chunk, int microbatch, std::size_t row) {
  const GradientSum& sum = sums_[chunk];
  std::size_t& unfinished = unfinished_[chunk];
  for (; microbatch == microbatches_ - 1 && unfinished > 0; --unfinished) {
    const std::size_t g = sum.groups()[unfinished - 1];
    const auto& group = table_.groups()[g];
    if (group.first_row < row) {
      break;
    }
    sum.finish(exec, g);
    over_ranks_.start(exec, group.gradients, accum_of(group.type), shards_[g]);
  }
  over_ranks_.progress();
}

void WholeGradients::finish(const Exec&) {
  const Phase phase("gradients over ranks");
  over_ranks_.wait();
}

}  // namespace qnext
