// SPDX-License-Identifier: Apache-2.0
#include "app/training_step.hpp"

#include "app/microbatch.hpp"
#include "core/phase.hpp"
#include "core/random.hpp"

#include <algorithm>

namespace qnext {
namespace {

std::int64_t label_count(const std::vector<TokenBatch>& batches) {
  std::int64_t count = 0;
  for (const TokenBatch& batch : batches) {
    count += batch.label_count;
  }
  return std::max<std::int64_t>(count, 1);
}

std::int64_t mtp_label_count(const std::vector<TokenBatch>& batches) {
  std::int64_t count = 0;
  for (const TokenBatch& batch : batches) {
    count += mtp_label_count(batch);
  }
  return std::max<std::int64_t>(count, 1);
}

double on_host(const Tensor<double, 0>& number) {
  double value = 0.0;
  Kokkos::deep_copy(value, number);
  return value;
}

}  // namespace

template <class Storage>
TrainingStep<Storage>::TrainingStep(const RunConfig& config, const Model<Storage>& model,
                                    const ParameterTable& table, const MicrobatchShape& largest)
    : config_(config),
      model_(model),
      largest_(largest),
      memory_(model, largest),
      gradient_sum_(table, config.run.gradient_order, config.data.microbatches()),
      load_(config.model),
      sums_(LossSums::make()) {}

template <class Storage>
LossScale TrainingStep<Storage>::loss_scale(const std::vector<TokenBatch>& batches) const {
  LossScale scale;
  scale.cross_entropy = 1.0 / static_cast<double>(label_count(batches));
  scale.balance = 1.0 / static_cast<double>(batches.size());
  if (model_.mtp() != nullptr) {
    scale.mtp = config_.mtp_loss / static_cast<double>(mtp_label_count(batches));
  }
  return scale;
}

template <class Storage>
Dropout TrainingStep<Storage>::dropout(std::int64_t step, std::size_t microbatch) const {
  const std::uint64_t place = static_cast<std::uint64_t>(step) * config_.data.microbatches() +
                              static_cast<std::uint64_t>(microbatch);
  return {config_.run.dropout, random_bits(random_key(config_.run.seed, "dropout"), place)};
}

template <class Storage>
StepNumbers TrainingStep<Storage>::compute_gradients(const Exec& exec, std::int64_t step,
                                                     const std::vector<TokenBatch>& batches,
                                                     const AdamW& optimizer) {
  const LossScale scale = loss_scale(batches);
  sums_.clear(exec);
  load_.clear(exec);
  for (std::size_t m = 0; m < batches.size(); ++m) {
    const Microbatch microbatch = to_device(batches[m]);
    auto& activations = memory_.of(shape_of(batches[m], largest_));
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
  }
  gradient_sum_.finish(exec);
  model_.balance_loss().end_step(exec);

  const Phase phase("gradient norm");
  StepNumbers numbers;
  numbers.gradients = optimizer.gradient_norms(exec);
  numbers.loss = on_host(sums_.cross_entropy) * scale.cross_entropy;
  numbers.loss_mtp =
      on_host(sums_.mtp) / static_cast<double>(model_.mtp() ? mtp_label_count(batches) : 1);
  numbers.loss_balance = on_host(sums_.balance) * scale.balance;
  numbers.load = load_.read(exec);
  numbers.mean_length = mean_length(batches);
  for (const TokenBatch& batch : batches) {
    numbers.tokens += static_cast<std::int64_t>(batch.tokens.size());
  }
  return numbers;
}

template class TrainingStep<bf16>;
template class TrainingStep<float>;
template class TrainingStep<double>;

}  // namespace qnext
