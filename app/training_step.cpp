// SPDX-License-Identifier: Apache-2.0
#include "app/training_step.hpp"

#include "core/phase.hpp"
#include "core/random.hpp"

#include <algorithm>

namespace qnext {
namespace {

template <class Real>
Tensor<Real, 1> gradients_of(const ParameterTable::Group& group) {
  return Tensor<Real, 1>(reinterpret_cast<Real*>(group.gradients.data()), group.elements);
}

}  // namespace

template <class Storage>
TrainingStep<Storage>::TrainingStep(const RunConfig& config, const ProcessGrid& grid,
                                    const Model<Storage>& model, const ParameterTable& table,
                                    const AdamW& optimizer, const MicrobatchShape& largest)
    : config_(config),
      grid_(grid),
      model_(model),
      table_(table),
      optimizer_(optimizer),
      largest_(largest),
      actions_(pipeline_schedule(config.pipeline_of_step(), grid.place.pipeline)),
      memory_(model, largest, most_in_flight(actions_, config.pipeline.chunks)),
      messages_(grid, model),
      shards_(named_apart(optimizer.shards(), table, grid, "gradients")),
      rank_sum_(TreeSum::workspace_bytes(grid, table, config.bucket), config.bucket),
      replica_sum_(grid, table),
      weights_(table, named_apart(optimizer.shards(), table, grid, "weights")),
      load_(config.model),
      sums_(LossSums::make()),
      losses_("losses of the microbatches", config.microbatches_of_rank(), 3) {
  for (const Chunk& chunk : model.chunks()) {
    gradient_sums_.emplace_back(table, config.run.gradient_order, config.microbatches_of_rank(),
                                chunk.place);
  }
  unfinished_.resize(model.chunks().size());
}

template <class Storage>
LossScale TrainingStep<Storage>::loss_scale(const BatchCounts& counts) const {
  LossScale scale;
  scale.cross_entropy = 1.0 / static_cast<double>(std::max<std::int64_t>(counts.labels, 1));
  scale.balance = 1.0 / static_cast<double>(config_.data.microbatches());
  if (config_.model.mtp_modules > 0) {
    scale.mtp =
        config_.mtp_loss / static_cast<double>(std::max<std::int64_t>(counts.mtp_labels, 1));
  }
  return scale;
}

template <class Storage>
Dropout TrainingStep<Storage>::dropout(std::int64_t step, int microbatch) const {
  const std::uint64_t before = static_cast<std::uint64_t>(step) * config_.data.microbatches() +
                               std::uint64_t(grid_.place.data) * config_.microbatches_of_rank();
  return {config_.run.dropout,
          random_bits(random_key(config_.run.seed, "dropout"), before + microbatch)};
}

// Those of the head are known where it is, that of balance behind the backward pass of the first
// chunk.
template <class Storage>
void TrainingStep<Storage>::keep_losses(const Exec& exec, const Chunk& chunk,
                                        int microbatch) const {
  const auto row = Kokkos::subview(losses_, microbatch, Kokkos::ALL);
  if (chunk.last()) {
    Kokkos::deep_copy(exec, Kokkos::subview(row, 0), sums_.cross_entropy);
    Kokkos::deep_copy(exec, Kokkos::subview(row, 1), sums_.mtp);
  }
  if (chunk.first()) {
    Kokkos::deep_copy(exec, Kokkos::subview(row, 2), sums_.balance);
  }
}

template <class Storage>
void TrainingStep<Storage>::forward(const Exec& exec, const PipelineAction& action,
                                    const TokenBatch& batch, const Dropout& dropout) {
  const MicrobatchShape shape = shape_of(batch, largest_, grid_.degrees.context);
  auto& slot = memory_.slot(action.chunk, action.microbatch, shape);
  slot.batch = to_device(batch, grid_);
  messages_.receive_input(slot);
  const Phase phase("forward");
  model_.forward(exec, slot.batch, dropout, slot.saved, memory_.work(shape), nullptr, nullptr,
                 [&](std::size_t row) { weights_.wait_for_rows(row); });
  load_.add<Storage>(exec, slot.saved, static_cast<int>(batch.tokens.size()));
  messages_.send_output(slot);
}

template <class Storage>
void TrainingStep<Storage>::backward(const Exec& exec, const PipelineAction& action,
                                     const TokenBatch& batch, const Dropout& dropout,
                                     const LossScale& scale) {
  const MicrobatchShape shape = shape_of(batch, largest_, grid_.degrees.context);
  auto& slot = memory_.in_flight(action.chunk, action.microbatch);
  const auto& work = memory_.work(shape);
  {
    const Phase phase("gradient sum");
    gradient_sums_[action.chunk].before_microbatch(exec, action.microbatch);
  }
  sums_.clear(exec);
  messages_.receive_gradient(slot, work, sums_);
  const Phase phase("backward");
  const bool last = action.microbatch == config_.microbatches_of_rank() - 1;
  unfinished_[action.chunk] = gradient_sums_[action.chunk].groups().size();
  model_.backward(exec, slot.batch, scale, dropout, slot.saved, work, sums_,
                  [&](std::size_t first_row) {
                    if (last) {
                      sum_finished_rows(exec, action.chunk, first_row);
                    }
                    rank_sum_.progress();
                  });
  keep_losses(exec, slot.saved.chunk, action.microbatch);
  messages_.send_gradient(exec, memory_, slot, work, sums_);
}

// In the last backward pass of a chunk, whose gradients are final from the last layer on: the
// groups of the table whose rows are no more in front of that one.
template <class Storage>
void TrainingStep<Storage>::sum_finished_rows(const Exec& exec, int chunk, std::size_t first_row) {
  const GradientSum& sum = gradient_sums_[chunk];
  std::size_t& unfinished = unfinished_[chunk];
  for (; unfinished > 0; --unfinished) {
    const std::size_t g = sum.groups()[unfinished - 1];
    const auto& group = table_.groups()[g];
    if (group.first_row < first_row) {
      return;
    }
    sum.finish(exec, g);
    accum_of(group.type) == DataType::float64
        ? rank_sum_.start<double>(exec, gradients_of<double>(group), shards_[g])
        : rank_sum_.start<float>(exec, gradients_of<float>(group), shards_[g]);
  }
}

template <class Storage>
void TrainingStep<Storage>::sum_over_replicas(const Exec& exec) {
  const Phase phase("gradients over replicas");
  for (std::size_t g = 0; g < shards_.size(); ++g) {
    replica_sum_.sum(exec, g, shards_[g].begin(), shards_[g].end());
  }
  grid_.data.sum_whole(model_.balance_loss().step_counts());
  grid_.pipeline.sum_whole(model_.balance_loss().step_counts());
}

// One after the other over the microbatches of the step. Context ranks know the losses of their own
// tokens, and the balance loss of all of them.
template <class Storage>
void TrainingStep<Storage>::add_losses(const LossScale& scale, const BatchCounts& counts,
                                       StepNumbers& numbers) const {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), losses_);
  const auto of_stages =
      grid_.pipeline.all_gather(std::vector<double>(host.data(), host.data() + host.size()));
  std::vector<double> mine(host.size(), 0.0);  // of this rank's microbatches
  for (std::size_t i = 0; i < of_stages.size(); ++i) {
    mine[i % mine.size()] += of_stages[i];
  }
  const auto all = grid_.copies.all_gather(mine);
  for (std::size_t i = 0; i < all.size(); i += 3) {
    const bool first_piece = i / host.size() % grid_.degrees.context == 0;
    numbers.loss += all[i];
    numbers.loss_mtp += all[i + 1];
    numbers.loss_balance += first_piece ? all[i + 2] : 0.0;
  }
  numbers.loss *= scale.cross_entropy;
  numbers.loss_mtp /= static_cast<double>(std::max<std::int64_t>(counts.mtp_labels, 1));
  numbers.loss_balance *= scale.balance;
}

template <class Storage>
StepNumbers TrainingStep<Storage>::compute_gradients(const Exec& exec, std::int64_t step,
                                                     const std::vector<TokenBatch>& batches) {
  const BatchCounts counts = count(batches, grid_.data);
  const LossScale scale = loss_scale(counts);
  load_.clear(exec);
  for (const PipelineAction& action : actions_) {
    const TokenBatch& batch = batches[action.microbatch];
    const Dropout mask = dropout(step, action.microbatch);
    action.forward ? forward(exec, action, batch, mask)
                   : backward(exec, action, batch, mask, scale);
  }
  memory_.wait();
  {
    const Phase phase("gradients over ranks");
    rank_sum_.wait();
  }
  sum_over_replicas(exec);
  model_.balance_loss().end_step(exec);

  const Phase phase("gradient norm");
  StepNumbers numbers;
  numbers.gradients = optimizer_.gradient_norms(exec);
  add_losses(scale, counts, numbers);
  numbers.load = load_.read(grid_);
  numbers.mean_length = counts.mean_length();
  numbers.tokens = counts.tokens;
  return numbers;
}

template <class Storage>
void TrainingStep<Storage>::update(const Exec& exec, std::int64_t updates, double learning_rate,
                                   double gradient_norm) {
  const Phase phase("update");
  for (std::size_t group = 0; group < shards_.size(); ++group) {
    optimizer_.update(exec, updates, learning_rate, gradient_norm, group);
    weights_.start(group);
  }
}

template class TrainingStep<bf16>;
template class TrainingStep<float>;
template class TrainingStep<double>;

}  // namespace qnext
