// SPDX-License-Identifier: Apache-2.0
#include "app/pipeline_schedule.hpp"

#include "core/parts.hpp"
#include "core/require.hpp"

#include <algorithm>
#include <string>

namespace qnext {
namespace {

// (chunk, microbatch) in the order of the forward passes: groups of microbatches, of nearly equal
// sizes that are as small as they may be. Backward passes mirror the chunks.
std::vector<PipelineAction> passes(const Pipeline& pipeline, int groups, bool forward) {
  std::vector<PipelineAction> order;
  for (int group = 0; group < groups; ++group) {
    const auto first = static_cast<int>(part_begin(pipeline.microbatches, group, groups));
    const auto last = static_cast<int>(part_begin(pipeline.microbatches, group + 1, groups));
    for (int i = 0; i < pipeline.chunks; ++i) {
      for (int m = first; m < last; ++m) {
        order.push_back({forward, forward ? i : pipeline.chunks - 1 - i, m});
      }
    }
  }
  return order;
}

// Forward passes of a stage before its first backward pass. A gradient comes back to it
// stages - 1 - stage passes of either kind after the last stage has begun with it; there, all but
// the last chunk of the first group go in front.
int warm_up(const Pipeline& pipeline, int groups, int stage) {
  const int behind = pipeline.stages - 1 - stage;
  if (pipeline.chunks == 1) {
    return std::min(behind, pipeline.microbatches);
  }
  const auto group = static_cast<int>(part_begin(pipeline.microbatches, 1, groups));
  return std::min(2 * behind + (pipeline.chunks - 1) * group,
                  pipeline.chunks * pipeline.microbatches);
}

}  // namespace

std::vector<PipelineAction> pipeline_schedule(const Pipeline& pipeline, int stage) {
  require(pipeline.chunks == 1 || pipeline.microbatches >= pipeline.stages,
          std::to_string(pipeline.chunks) + " chunks on each of " +
              std::to_string(pipeline.stages) + " stages want as many microbatches, not " +
              std::to_string(pipeline.microbatches));
  const int groups = std::max(1, pipeline.microbatches / pipeline.stages);
  const auto forward = passes(pipeline, groups, true), backward = passes(pipeline, groups, false);
  const std::size_t ahead = warm_up(pipeline, groups, stage);
  std::vector<PipelineAction> actions(forward.begin(),
                                      forward.begin() + static_cast<std::ptrdiff_t>(ahead));
  for (std::size_t i = 0; i < backward.size(); ++i) {
    if (ahead + i < forward.size()) {
      actions.push_back(forward[ahead + i]);
    }
    actions.push_back(backward[i]);
  }
  return actions;
}

std::vector<PipelineAction> forward_schedule(const Pipeline& pipeline) {
  return passes(pipeline, (pipeline.microbatches + pipeline.stages - 1) / pipeline.stages, true);
}

std::vector<int> most_in_flight(const std::vector<PipelineAction>& actions, int chunks) {
  std::vector<int> now(chunks, 0), most(chunks, 0);
  for (const PipelineAction& action : actions) {
    now[action.chunk] += action.forward ? 1 : -1;
    most[action.chunk] = std::max(most[action.chunk], now[action.chunk]);
  }
  return most;
}

double bubble_share(const Pipeline& pipeline) {
  return (pipeline.stages - 1.0) / (1.0 * pipeline.chunks * pipeline.microbatches);
}

}  // namespace qnext
