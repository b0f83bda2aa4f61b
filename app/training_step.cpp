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
      memory_(model, largest),
      gradient_sum_(table, config.run.gradient_order, config.microbatches_of_rank()),
      rank_sum_(TreeSum::workspace_bytes(grid, table)),
      replica_sum_(grid, table),
      load_(config.model),
      sums_(LossSums::make()),
      losses_("losses of the microbatches", config.microbatches_of_rank(), 3) {}

template <class Storage>
LossScale TrainingStep<Storage>::loss_scale(const BatchCounts& counts) const {
  LossScale scale;
  scale.cross_entropy = 1.0 / static_cast<double>(std::max<std::int64_t>(counts.labels, 1));
  scale.balance = 1.0 / static_cast<double>(config_.data.microbatches());
  if (model_.mtp() != nullptr) {
    scale.mtp =
        config_.mtp_loss / static_cast<double>(std::max<std::int64_t>(counts.mtp_labels, 1));
  }
  return scale;
}

template <class Storage>
Dropout TrainingStep<Storage>::dropout(std::int64_t step, std::size_t microbatch) const {
  const std::uint64_t before = static_cast<std::uint64_t>(step) * config_.data.microbatches() +
                               std::uint64_t(grid_.place.data) * config_.microbatches_of_rank();
  return {config_.run.dropout,
          random_bits(random_key(config_.run.seed, "dropout"), before + microbatch)};
}

// The sums of this microbatch go to its row and start again from zero.
template <class Storage>
void TrainingStep<Storage>::keep_losses(const Exec& exec, int microbatch) const {
  const auto row = Kokkos::subview(losses_, microbatch, Kokkos::ALL);
  Kokkos::deep_copy(exec, Kokkos::subview(row, 0), sums_.cross_entropy);
  Kokkos::deep_copy(exec, Kokkos::subview(row, 1), sums_.mtp);
  Kokkos::deep_copy(exec, Kokkos::subview(row, 2), sums_.balance);
  sums_.clear(exec);
}

template <class Storage>
void TrainingStep<Storage>::sum_over_ranks(const Exec& exec) const {
  const Phase phase("gradients over ranks");
  for (std::size_t g = 0; g < table_.groups().size(); ++g) {
    const auto& group = table_.groups()[g];
    const Shards& shards = optimizer_.shards()[g];
    accum_of(group.type) == DataType::float64
        ? rank_sum_.sum_parts<double>(exec, gradients_of<double>(group), shards)
        : rank_sum_.sum_parts<float>(exec, gradients_of<float>(group), shards);
    replica_sum_.sum(exec, g, shards.begin(), shards.end());
  }
  grid_.data.sum_whole(model_.balance_loss().step_counts());
}

// One after the other over the microbatches of the step. Context ranks know the losses of their own
// tokens, and the balance loss of all of them.
template <class Storage>
void TrainingStep<Storage>::add_losses(const LossScale& scale, const BatchCounts& counts,
                                       StepNumbers& numbers) const {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), losses_);
  const auto all =
      grid_.copies.all_gather(std::vector<double>(host.data(), host.data() + host.size()));
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
  sums_.clear(exec);
  load_.clear(exec);
  for (std::size_t m = 0; m < batches.size(); ++m) {
    const Microbatch microbatch = to_device(batches[m], grid_);
    auto& activations = memory_.of(shape_of(batches[m], largest_, grid_.degrees.context));
    {
      const Phase phase("gradient sum");
      gradient_sum_.before_microbatch(exec, static_cast<int>(m));
    }
    {
      const Phase phase("forward");
      model_.forward(exec, microbatch, dropout(step, m), activations.saved, activations.work);
      load_.add<Storage>(exec, activations.saved, static_cast<int>(batches[m].tokens.size()));
    }
    const Phase phase("backward");
    model_.backward(exec, microbatch, scale, dropout(step, m), activations.saved, activations.work,
                    sums_);
    keep_losses(exec, static_cast<int>(m));
  }
  gradient_sum_.finish(exec);
  sum_over_ranks(exec);
  model_.balance_loss().end_step(exec);

  const Phase phase("gradient norm");
  StepNumbers numbers;
  numbers.gradients = optimizer_.gradient_norms(exec);
  add_losses(scale, counts, numbers);
  numbers.load = load_.read(grid_.data);
  numbers.mean_length = counts.mean_length();
  numbers.tokens = counts.tokens;
  return numbers;
}

template class TrainingStep<bf16>;
template class TrainingStep<float>;
template class TrainingStep<double>;

}  // namespace qnext
