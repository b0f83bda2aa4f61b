// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/checkpoint.hpp"
#include "io/data_stream.hpp"
#include "layers/adamw.hpp"

#include <cstdint>
#include <deque>
#include <limits>
#include <string>
#include <vector>

namespace qnext {

/// Where a run is: with the tensors, all that the next step depends on.
struct RunState {
  std::int64_t step = 0;     // steps done
  std::int64_t updates = 0;  // of the optimizer; steps can be skipped
  std::int64_t tokens = 0;
  double seconds = 0.0;  // of training, over all restarts
  DataCursor cursor;
  std::deque<double> usual_norms;                              // of the spike detector
  double best_loss = std::numeric_limits<double>::infinity();  // by evaluation
  std::int64_t best_step = 0;
};

/// The optimizer's numbers as they stand in a checkpoint.
std::vector<TensorFamily> optimizer_families(const AdamW& optimizer);

/// What a checkpoint holds beside tensors. `previous_counts` are those of a balance loss of global
/// scope, or empty.
CheckpointContent restart_content(const RunState& state, const Tensor<double, 2>& previous_counts);

/// The opposite. Refuses counts of another shape.
RunState restart_state(const CheckpointContent& content, const Tensor<double, 2>& previous_counts);

/// The checkpoint that a path names: itself, or the newest whole one of a run folder, which all
/// ranks of `world` look for.
std::string checkpoint_of(const std::string& path, const Communicator& world = {});

}  // namespace qnext
