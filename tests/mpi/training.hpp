// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/model_start.hpp"
#include "app/run_config.hpp"
#include "app/trained_model.hpp"
#include "app/training_step.hpp"
#include "core/parameter.hpp"
#include "layers/adamw.hpp"
#include "tests/model_support.hpp"

#include <cstdint>
#include <type_traits>
#include <vector>

/// Steps of training as a run takes them, for tests that look at gradients and weights.
namespace qnext::test {

/// Random documents of these lengths, which fill the sequences one after the other.
inline TokenBatch token_batch(const std::vector<int>& lengths, int vocabulary, std::uint64_t seed,
                              int sequences = 1) {
  const TestBatch batch(lengths, vocabulary, seed, sequences);
  TokenBatch tokens;
  tokens.tokens.assign(batch.tokens.begin(), batch.tokens.end());
  tokens.labels.assign(batch.labels.begin(), batch.labels.end());
  tokens.lengths = lengths;
  tokens.sequences = sequences;
  tokens.label_count = batch.label_count;
  return tokens;
}

/// A model in training on the ranks of a grid, with at most three documents in a sequence.
template <class Storage>
struct Training {
  RunConfig config;
  const ProcessGrid& grid;
  TrainedModel<Storage> trained;
  AdamW optimizer;
  TrainingStep<Storage> step;

  Training(const RunConfig& run, const ProcessGrid& grid)
      : config(run),
        grid(grid),
        trained(config.model, true, grid, config.pipeline.chunks_of(grid.place.pipeline),
                config.bucket, config.zero),
        optimizer(config.optimizer.adamw, trained.table, grid, config.zero == 2),
        step(config, grid, trained.model, trained.table, optimizer, config.shape(3)) {
    start_weights(config.init, config.run.seed, trained.table, grid.world);
    optimizer.copy_masters_from_parameters();
  }

  /// Whole on each rank, behind the step's own sum.
  StepNumbers gradients(std::int64_t s, const std::vector<TokenBatch>& batches) {
    const StepNumbers numbers = step.compute_gradients(Exec{}, s, batches);
    for (std::size_t g = 0; g < optimizer.shards().size(); ++g) {
      const auto& group = trained.table.groups()[g];
      if (group.frozen) {
        continue;
      }
      const Shards& shards = optimizer.shards()[g];
      const auto gather = [&](auto* values) {
        shards.over.all_gather_parts(
            Tensor<std::decay_t<decltype(*values)>, 1>(values, group.elements), shards.borders);
      };
      accum_of(group.type) == DataType::float64
          ? gather(reinterpret_cast<double*>(group.gradients.data()))
          : gather(reinterpret_cast<float*>(group.gradients.data()));
    }
    return numbers;
  }

  void update(std::int64_t s, double rate, const StepNumbers& numbers) {
    step.update(Exec{}, s, rate, numbers.gradients.global);
    step.wait_for_weights();
  }
};

}  // namespace qnext::test
