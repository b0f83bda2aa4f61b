// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/training_step.hpp"
#include "io/metrics_writer.hpp"
#include "io/tensorboard.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace qnext {

/// The numbers of each step in the files of a run: metrics.jsonl, metrics.csv and, where it is
/// wanted, an event file of TensorBoard.
class RunMetrics {
 public:
  struct Speed {
    double tokens_per_second = 0.0;
    double mfu = 0.0;  // 0: the peak is not known
    std::int64_t peak_memory = 0;
  };

  RunMetrics(const std::string& folder, std::int64_t last_step, bool tensorboard);

  void write(std::int64_t step, std::int64_t tokens, const StepNumbers& numbers,
             double learning_rate, const Speed& speed, std::optional<double> evaluation_loss);
  void flush();

 private:
  MetricsWriter files_;
  std::optional<TensorboardWriter> tensorboard_;
};

}  // namespace qnext
