// SPDX-License-Identifier: Apache-2.0
#include "app/part_gradients.hpp"

#include "app/gradient_numbers.hpp"
#include "core/pairwise_tree.hpp"
#include "core/phase.hpp"

#include <utility>

namespace qnext {
namespace {

using gradient_numbers::add_numbers;
using gradient_numbers::Bytes;
using gradient_numbers::numbers;

// By numbers and not by bytes: several times as fast.
template <class Real>
void copy_numbers(const Exec& exec, const Bytes& to, const Bytes& from) {
  Kokkos::deep_copy(exec, numbers<Real>(to), numbers<Real>(from));
}

}  // namespace

PartGradients::PartGradients(const RunConfig& config, const ProcessGrid& grid,
                             const ParameterTable& table, GradientWindow window,
                             const AdamW& optimizer)
    : table_(table),
      optimizer_(optimizer),
      tree_(config.run.gradient_order == GradientOrder::tree),
      microbatches_(config.microbatches_of_rank()),
      window_(std::move(window)),
      parts_(table.groups().size()),
      shards_(named_apart(optimizer.shards(), table, grid, "gradients")),
      over_ranks_(TreeSum::workspace_bytes(grid, table, config.bucket), config.bucket) {
  const int levels = GradientSum::levels(config.run.gradient_order, microbatches_);
  int chunk = -1;  // groups are in the order of chunks
  for (std::size_t g = 0; g < parts_.size(); ++g) {
    for (int level = 0; level < levels; ++level) {
      parts_[g].stack.emplace_back(
          Kokkos::view_alloc("gradient stack", Kokkos::WithoutInitializing),
          optimizer.gradient_part(g).extent(0));
    }
    if (table.groups()[g].chunk != chunk) {
      groups_.emplace_back();
      chunk = table.groups()[g].chunk;
    }
    groups_.back().push_back(g);
  }
}

// What lay in this memory has been sent and added before a backward pass adds to it.
void PartGradients::clear(const Exec& exec, std::size_t g) {
  for (const std::size_t other : window_.groups[g].shares) {
    over_ranks_.wait(parts_[other].job);
  }
  const auto& group = table_.groups()[g];
  accum_of(group.type) == DataType::float64
      ? Kokkos::deep_copy(exec, numbers<double>(group.gradients), 0.0)
      : Kokkos::deep_copy(exec, numbers<float>(group.gradients), 0.0f);
}

// Puts the part that was summed over the ranks on the stack of the step.
void PartGradients::add(const Exec& exec, std::size_t g, int microbatch) {
  const bool wide = accum_of(table_.groups()[g].type) == DataType::float64;
  const int size = wide ? sizeof(double) : sizeof(float);
  const Bytes sum = optimizer_.gradient_part(g);
  const Bytes arrived(table_.groups()[g].gradients.data() + shards_[g].begin() * size,
                      sum.extent(0));
  const auto copy = wide ? copy_numbers<double> : copy_numbers<float>;
  const auto plus = wide ? add_numbers<double> : add_numbers<float>;
  Part& part = parts_[g];
  if (microbatch > 0 && !tree_) {
    plus(exec, sum, arrived);
    return;
  }
  if (microbatch == 0) {
    part.waiting = 0;
  } else {
    copy(exec, part.stack[part.waiting++], sum);
  }
  copy(exec, sum, arrived);
  for (int merge = tree_ ? merges_after(microbatch, microbatches_) : 0; merge > 0; --merge) {
    plus(exec, sum, part.stack[--part.waiting]);
  }
}

void PartGradients::before_backward(const Exec& exec, int chunk, int) {
  piece_ = 0;
  for (const std::size_t g : groups_[chunk]) {
    if (window_.groups[g].first_piece == 0) {
      clear(exec, g);
    }
  }
}

void PartGradients::behind_piece(const Exec& exec, int chunk, int microbatch, std::size_t) {
  for (auto g = groups_[chunk].rbegin(); g != groups_[chunk].rend(); ++g) {
    const auto& group = table_.groups()[*g];
    if (window_.groups[*g].last_piece == piece_) {
      parts_[*g].job =
          over_ranks_.start(exec, group.gradients, accum_of(group.type), shards_[*g],
                            [this, exec, g = *g, microbatch] { add(exec, g, microbatch); });
    }
  }
  over_ranks_.progress();
  ++piece_;
  for (const std::size_t g : groups_[chunk]) {
    if (window_.groups[g].first_piece == piece_) {
      clear(exec, g);
    }
  }
}

void PartGradients::finish(const Exec&) {
  const Phase phase("gradients over ranks");
  over_ranks_.wait();
}

}  // namespace qnext
