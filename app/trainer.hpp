// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/hugging_face_origin.hpp"
#include "app/restart.hpp"
#include "app/run_config.hpp"
#include "app/run_data.hpp"
#include "app/run_folder.hpp"
#include "app/run_log.hpp"
#include "app/run_metrics.hpp"
#include "app/signals.hpp"
#include "app/spike_detector.hpp"
#include "app/trained_model.hpp"
#include "app/training_step.hpp"
#include "core/require.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/deck.hpp"
#include "parallel/process_grid.hpp"

#include <chrono>
#include <optional>

namespace qnext {

/// One run from its first step, or from its newest checkpoint, to its last step or to a request to
/// leave. All ranks of the grid run it together and decide everything alike; the first one writes.
template <class Storage>
class Trainer {
 public:
  Trainer(const RunConfig& config, const Deck& deck, const RunData& data, const RunFolder& folder,
          RunLog& log, const ProcessGrid& grid);

  Status run();

 private:
  using Clock = std::chrono::steady_clock;

  // What users, clocks and batch systems want after a step: agreed upon by all ranks.
  struct Requests {
    int signal = 0;
    bool stop = false;
    bool checkpoint_now = false;
    bool wall_time_is_over = false;
    bool checkpoint_is_due = false;
  };

  void start();
  std::string find_start();
  void resume(const std::string& path);
  void step();
  bool may_update(const StepNumbers& numbers);
  void evaluate();
  void checkpoint(const char* why);
  Requests requests() const;
  void report(const StepNumbers& numbers, double rate, double seconds);
  void finish_request(const char* file) const;
  std::optional<Status> answer(const Requests& requests);

  const RunConfig& config_;
  const Deck& deck_;
  const RunData& data_;
  const RunFolder& folder_;
  RunLog& log_;
  const ProcessGrid& grid_;
  Clock::time_point begin_ = Clock::now();
  SignalGuard signals_;

  Exec exec_;
  TrainedModel<Storage> trained_;
  AdamW optimizer_;
  MicrobatchShape largest_;
  TrainingStep<Storage> step_;
  SpikeDetector spikes_;
  CheckpointFolder checkpoints_;
  RunState state_;
  std::optional<HuggingFaceOrigin> origin_;  // of the weights that the run started with
  std::int64_t updates_before_ = 0;          // of those that `origin_` counts
  std::optional<RunMetrics> metrics_;        // of the first rank
  double peak_flops_ = 0.0;

  std::optional<double> evaluated_;    // the loss, if this step was evaluated
  std::int64_t last_checkpoint_ = -1;  // step
  Clock::time_point checkpoint_time_ = begin_;
  double longest_step_ = 0.0;         // seconds
  std::int64_t interval_tokens_ = 0;  // since the last line of the log
  double interval_seconds_ = 0.0;
};

}  // namespace qnext
