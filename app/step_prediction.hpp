// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/machine.hpp"
#include "app/memory_plan.hpp"
#include "app/run_config.hpp"

#include <string>

namespace qnext {

/// Seconds of one training step of the slowest rank, by what they are spent on. Messages and
/// arithmetic are added up: nothing of one hides behind the other.
struct StepPrediction {
  double arithmetic = 0.0;  // layers, head, what is computed again
  double memory =
      0.0;  // norms, residual stream, gradient sums, optimizer: what is read and written
  double messages = 0.0;
  double bubble = 0.0;  // stages of a pipeline that wait for others
  double tokens = 0.0;  // of the step, of all ranks

  double seconds() const { return arithmetic + memory + messages + bubble; }
  double tokens_per_second() const { return tokens / seconds(); }

  /// What a device whose messages run beside its kernels can save at most: the smaller of the two.
  double hideable() const { return messages < arithmetic ? messages : arithmetic; }
};

StepPrediction predict_step(const RunConfig& config, const ModelPlan& plan, const Machine& machine);

/// A table of it.
std::string prediction_table(const StepPrediction& prediction);

}  // namespace qnext
