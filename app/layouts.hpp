// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/machine.hpp"
#include "app/memory_plan.hpp"
#include "app/run_config.hpp"
#include "app/step_prediction.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

/// One way to share out the ranks of a job.
struct Layout {
  Degrees degrees;
  int chunks = 1;  // pieces of layers that each stage has
  StepPrediction step;
  std::int64_t memory = 0;  // bytes of a rank
  bool fits = true;
};

/// Bytes that a plan may take: the limit of the run, else the memory of the machine; 0: not said.
std::int64_t memory_of_rank(const RunConfig& config, const Machine& machine);

/// All ways that divide the model, the data and so many ranks, a pipeline also with 2, 4, ...
/// chunks a stage where less waiting could make it faster than all ways with one. Best first: those
/// whose plan is within `memory` bytes a rank (0: all are), by predicted time, then the others by
/// memory.
std::vector<Layout> find_layouts(const RunConfig& config, int ranks, const Machine& machine,
                                 std::int64_t memory, int documents);

/// What `parallel: auto` does: the run takes the best of them, by the rates and the memory that it
/// goes by. Returns all. Throws InputError where there is none.
std::vector<Layout> choose_layout(RunConfig& config, int ranks, int documents);

/// The first ones, a line each.
std::string layout_table(const std::vector<Layout>& layouts, int count);

}  // namespace qnext
