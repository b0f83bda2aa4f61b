// SPDX-License-Identifier: Apache-2.0
#include "app/run_metrics.hpp"

#include <vector>

namespace qnext {
namespace {

const std::vector<std::string> columns{"tokens",
                                       "loss",
                                       "loss_mtp",
                                       "loss_balance",
                                       "gradient_norm",
                                       "learning_rate",
                                       "expert_load_min",
                                       "expert_load_mean",
                                       "expert_load_max",
                                       "dropped_share",
                                       "tokens_per_second",
                                       "mfu",
                                       "peak_memory_bytes",
                                       "evaluation_loss"};

}  // namespace

RunMetrics::RunMetrics(const std::string& folder, std::int64_t last_step, bool tensorboard)
    : files_(folder, columns, last_step) {
  if (tensorboard) {
    tensorboard_.emplace(folder, last_step + 1);
  }
}

void RunMetrics::write(std::int64_t step, std::int64_t tokens, const StepNumbers& numbers,
                       double learning_rate, const Speed& speed,
                       std::optional<double> evaluation_loss) {
  std::vector<Metric> metrics{{"tokens", static_cast<double>(tokens)},
                              {"loss", numbers.loss},
                              {"loss_mtp", numbers.loss_mtp},
                              {"loss_balance", numbers.loss_balance},
                              {"gradient_norm", numbers.gradients.global},
                              {"learning_rate", learning_rate},
                              {"expert_load_min", numbers.load.least},
                              {"expert_load_mean", numbers.load.mean},
                              {"expert_load_max", numbers.load.most},
                              {"dropped_share", numbers.load.dropped},
                              {"tokens_per_second", speed.tokens_per_second},
                              {"mfu", speed.mfu},
                              {"peak_memory_bytes", static_cast<double>(speed.peak_memory)}};
  if (evaluation_loss) {
    metrics.emplace_back("evaluation_loss", *evaluation_loss);
  }
  files_.write(step, metrics);
  if (tensorboard_) {
    for (const auto& [name, value] : metrics) {
      tensorboard_->write(step, name, value);
    }
  }
}

void RunMetrics::flush() {
  files_.flush();
  if (tensorboard_) {
    tensorboard_->flush();
  }
}

}  // namespace qnext
