// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/activations.hpp"
#include "app/expert_load.hpp"
#include "app/gradient_sum.hpp"
#include "app/run_config.hpp"
#include "io/data_stream.hpp"
#include "layers/adamw.hpp"
#include "layers/model.hpp"

#include <cstdint>
#include <vector>

namespace qnext {

/// What is known of a step when its gradients are.
struct StepNumbers {
  double loss = 0.0;          // cross entropy, mean over the labels, nats
  double loss_mtp = 0.0;      // the same of multi-token prediction, without coefficient
  double loss_balance = 0.0;  // of the chosen form, without coefficient, mean over microbatches
  std::int64_t tokens = 0;
  double mean_length = 0.0;  // that attention saw
  ExpertLoad load;
  AdamW::GradientNorms gradients;
};

/// Computes the gradients of one step: the sum over its microbatches, in the table.
template <class Storage>
class TrainingStep {
 public:
  TrainingStep(const RunConfig& config, const Model<Storage>& model, const ParameterTable& table,
               const MicrobatchShape& largest);

  ActivationMemory<Storage>& memory() { return memory_; }

  StepNumbers compute_gradients(const Exec& exec, std::int64_t step,
                                const std::vector<TokenBatch>& batches, const AdamW& optimizer);

 private:
  LossScale loss_scale(const std::vector<TokenBatch>& batches) const;
  Dropout dropout(std::int64_t step, std::size_t microbatch) const;

  const RunConfig& config_;
  const Model<Storage>& model_;
  MicrobatchShape largest_;
  ActivationMemory<Storage> memory_;
  GradientSum gradient_sum_;
  ExpertLoadCounter load_;
  LossSums sums_;
};

}  // namespace qnext
