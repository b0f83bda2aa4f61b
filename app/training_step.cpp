// SPDX-License-Identifier: Apache-2.0
#include "app/training_step.hpp"

#include "app/part_gradients.hpp"
#include "app/whole_gradients.hpp"
#include "core/phase.hpp"
#include "core/random.hpp"

#include <algorithm>

namespace qnext {
namespace {

std::unique_ptr<StepGradients> make_gradients(const RunConfig& config, const ProcessGrid& grid,
                                              const ParameterTable& table,
                                              const std::vector<Chunk>& chunks,
                                              const std::vector<BackwardPieces>& pieces,
                                              const AdamW& optimizer) {
  if (config.zero == 2) {
    return std::make_unique<PartGradients>(config, grid, table, GradientWindow(table, pieces),
                                           optimizer);
  }
  return std::make_unique<WholeGradients>(config, grid, table, chunks, optimizer.shards());
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
      gradients_(
          make_gradients(config, grid, table, model.chunks(), model.backward_pieces(), optimizer)),
      replica_sum_(grid, table),
      weights_(table, named_apart(optimizer.shards(), table, grid, "weights")),
      load_(config.model),
      sums_(LossSums::make()),
      losses_("losses of the microbatches", config.microbatches_of_rank(), 3) {}

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
  const auto before = static_cast<std::uint64_t>(step) * config_.data.microbatches();
  return {config_.run.dropout,
          random_bits(random_key(config_.run.seed, "dropout"),
                      before + config_.microbatch_of_step(grid_.place.data, microbatch))};
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
  gradients_->before_backward(exec, action.chunk, action.microbatch);
  sums_.clear(exec);
  messages_.receive_gradient(slot, work, sums_);
  const Phase phase("backward");
  model_.backward(exec, slot.batch, scale, dropout, slot.saved, work, sums_, [&](std::size_t row) {
    gradients_->behind_piece(exec, action.chunk, action.microbatch, row);
  });
  keep_losses(exec, slot.saved.chunk, action.microbatch);
  messages_.send_gradient(exec, memory_, slot, work, sums_);
}

template <class Storage>
void TrainingStep<Storage>::sum_over_replicas(const Exec& exec) {
  const Phase phase("gradients over replicas");
  for (std::size_t g = 0; g < table_.groups().size(); ++g) {
    if (!table_.groups()[g].frozen) {
      replica_sum_.sum(exec, g, optimizer_.gradient_part(g));
    }
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
  const int pieces = grid_.degrees.context, count = config_.microbatches_of_rank();
  for (int i = 0; i < config_.data.microbatches(); ++i) {
    const auto [place, microbatch] = config_.taker_of(i);
    for (int piece = 0; piece < pieces; ++piece) {
      const double* const losses = &all[3 * ((place * pieces + piece) * count + microbatch)];
      numbers.loss += losses[0];
      numbers.loss_mtp += losses[1];
      numbers.loss_balance += piece == 0 ? losses[2] : 0.0;
    }
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
  gradients_->finish(exec);
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
  for (std::size_t group = 0; group < table_.groups().size(); ++group) {
    if (!table_.groups()[group].frozen) {
      optimizer_.update(exec, updates, learning_rate, gradient_norm, group);
      weights_.start(group);
    }
  }
}

template class TrainingStep<bf16>;
template class TrainingStep<float>;
template class TrainingStep<double>;

}  // namespace qnext
