// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/activations.hpp"
#include "app/expert_load.hpp"
#include "app/microbatch.hpp"
#include "app/pipeline_schedule.hpp"
#include "app/run_config.hpp"
#include "app/stage_messages.hpp"
#include "app/step_gradients.hpp"
#include "io/data_stream.hpp"
#include "layers/adamw.hpp"
#include "layers/model.hpp"
#include "parallel/process_grid.hpp"
#include "parallel/replica_sum.hpp"
#include "parallel/weight_gather.hpp"

#include <cstdint>
#include <memory>
#include <vector>

namespace qnext {

/// What is known of a step when its gradients are: of all ranks together, and the same on each.
struct StepNumbers {
  double loss = 0.0;          // cross entropy, mean over the labels, nats
  double loss_mtp = 0.0;      // the same of multi-token prediction, without coefficient
  double loss_balance = 0.0;  // of the chosen form, without coefficient, mean over microbatches
  std::int64_t tokens = 0;
  double mean_length = 0.0;  // that attention saw
  ExpertLoad load;
  AdamW::GradientNorms gradients;
};

/// Computes the gradients of one step: the sum over its microbatches, of which this rank takes
/// consecutive ones, in the order of the schedule of a pipeline. Sums over microbatches have the
/// same order on any number of ranks.
template <class Storage>
class TrainingStep {
 public:
  TrainingStep(const RunConfig& config, const ProcessGrid& grid, const Model<Storage>& model,
               const ParameterTable& table, const AdamW& optimizer, const MicrobatchShape& largest);

  ActivationMemory<Storage>& memory() { return memory_; }
  const StageMessages<Storage>& messages() const { return messages_; }

  /// `batches`: those of this rank. The gradients of the whole step are in the part of the table
  /// that the optimizer's shards give to this rank.
  StepNumbers compute_gradients(const Exec& exec, std::int64_t step,
                                const std::vector<TokenBatch>& batches);

  /// Updates the weights with these gradients: `updates` = 1, 2, ... They go to the other ranks
  /// behind what comes next; each forward pass of compute_gradients waits for what it reads.
  void update(const Exec& exec, std::int64_t updates, double learning_rate, double gradient_norm);

  /// Until this rank has all weights. Whoever else reads them asks for it first.
  void wait_for_weights() { weights_.wait(); }

 private:
  LossScale loss_scale(const BatchCounts& counts) const;
  Dropout dropout(std::int64_t step, int microbatch) const;
  void forward(const Exec& exec, const PipelineAction& action, const TokenBatch& batch,
               const Dropout& dropout);
  void backward(const Exec& exec, const PipelineAction& action, const TokenBatch& batch,
                const Dropout& dropout, const LossScale& scale);
  void keep_losses(const Exec& exec, const Chunk& chunk, int microbatch) const;
  void sum_over_replicas(const Exec& exec);
  void add_losses(const LossScale& scale, const BatchCounts& counts, StepNumbers& numbers) const;

  const RunConfig& config_;
  const ProcessGrid& grid_;
  const Model<Storage>& model_;
  const ParameterTable& table_;
  const AdamW& optimizer_;
  MicrobatchShape largest_;
  std::vector<PipelineAction> actions_;
  ActivationMemory<Storage> memory_;
  StageMessages<Storage> messages_;
  std::unique_ptr<StepGradients> gradients_;
  ReplicaSum replica_sum_;
  WeightGather weights_;
  ExpertLoadCounter load_;
  LossSums sums_;
  Tensor<double, 2> losses_;  // (microbatches of this rank, 3)  cross entropy, MTP, balance, each
                              // on the stage that knows it, 0 on the others
};

}  // namespace qnext
