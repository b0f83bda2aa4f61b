// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/run_config.hpp"
#include "app/traffic_plan.hpp"
#include "core/parameter.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

/// Bytes of one rank by kind, from arithmetic alone.
struct MemoryPlan {
  struct Line {
    std::string name;
    std::int64_t bytes;
  };
  std::vector<Line> lines;
  std::vector<Line> activations;  // of which: by name of the tensor, over all layers, largest first

  std::int64_t total() const;
};

/// The model of a deck: registered, but without memory.
struct ModelPlan {
  std::int64_t parameters = 0;      // of the whole model
  std::int64_t trained = 0;         // of which are not frozen
  std::int64_t mtp_parameters = 0;  // of which in the module for multi-token prediction
  std::vector<MemoryPlan> stages;   // of a pipeline; one without
  std::int64_t local_elements = 0;  // parameters of a rank, of the stage that has most
  TrafficPlan traffic;              // of the first rank

  /// Of the stage that wants most.
  const MemoryPlan& largest() const;
};

/// `documents`: pieces of documents in one sequence, at most.
ModelPlan plan_model(const RunConfig& config, int documents);

}  // namespace qnext
