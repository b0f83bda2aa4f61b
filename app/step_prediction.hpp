// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/machine.hpp"
#include "app/memory_plan.hpp"
#include "app/run_config.hpp"

#include <string>

namespace qnext {

/// Seconds of one training step of the slowest rank, by what they are spent on. Messages are added
/// to arithmetic, but for what the machine hides of gradients and weights.
struct StepPrediction {
  double arithmetic = 0.0;  // layers, head, what is computed again
  double memory =
      0.0;  // norms, residual stream, gradient sums, optimizer: what is read and written
  double messages = 0.0;
  double hideable = 0.0;  // of them: gradients behind the last backward pass, weights behind the
                          // first forward pass
  double hidden = 0.0;    // of these: the share in which the machine computes on
  double bubble = 0.0;    // stages of a pipeline that wait for others
  double tokens = 0.0;    // of the step, of all ranks

  double seconds() const { return arithmetic + memory + messages - hidden + bubble; }
  double tokens_per_second() const { return tokens / seconds(); }

  /// Of a device whose messages run beside its kernels.
  double seconds_of_overlap() const { return seconds() + hidden - hideable; }
};

StepPrediction predict_step(const RunConfig& config, const ModelPlan& plan, const Machine& machine);

/// A table of it.
std::string prediction_table(const StepPrediction& prediction);

}  // namespace qnext
