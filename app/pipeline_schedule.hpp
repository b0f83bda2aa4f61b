// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

namespace qnext {

/// What a pipeline divides: the layers of a model into stages x chunks consecutive pieces, of which
/// piece k belongs to stage k mod stages, and the microbatches that go through them in a step.
struct Pipeline {
  int stages = 1;
  int chunks = 1;  // pieces of each stage
  int microbatches = 1;
};

/// One piece of work of a stage.
struct PipelineAction {
  bool forward;
  int chunk;  // of this stage
  int microbatch;

  bool operator==(const PipelineAction&) const = default;
};

/// What a stage does in a step, in order: interleaved 1F1B (Narayanan et al. 2021, section 2.2).
///
/// Microbatches go in groups of at least as many as there are stages: all of a group through the
/// first chunk, then through the second, ...; backward through the last chunk first. A stage starts
/// with so many forward passes that the last stage's first gradient reaches it when they are done,
/// then takes one backward pass and one forward pass in turn. Forward and backward passes of a
/// chunk come in the order of the microbatches. With one stage: forward, backward, forward, ...
///
/// With several chunks there are at least as many microbatches as stages.
std::vector<PipelineAction> pipeline_schedule(const Pipeline& pipeline, int stage);

/// The same without backward passes: evaluation.
std::vector<PipelineAction> forward_schedule(const Pipeline& pipeline);

/// How many microbatches of each chunk are in flight at most: behind their forward pass there, and
/// not behind their backward pass. The slots of activations that a stage needs.
std::vector<int> most_in_flight(const std::vector<PipelineAction>& actions, int chunks);

/// Idle time of a stage as a share of its work, if all chunks take equally long and microbatches
/// are a multiple of stages: each stage waits for stages - 1 chunks forward and backward,
///
///     (stages - 1) / (chunks microbatches)
double bubble_share(const Pipeline& pipeline);

}  // namespace qnext
