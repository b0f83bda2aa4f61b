// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/deck.hpp"
#include "layers/chunk.hpp"
#include "layers/model.hpp"
#include "parallel/process_grid.hpp"

#include <cstdint>
#include <vector>

namespace qnext {

/// How a pipeline divides the layers of a model.
struct PipelineCut {
  int stages = 1;
  int chunks = 1;  // consecutive pieces of layers that each stage has
  std::vector<int>
      layers;  // of each of the stages x chunks pieces; piece k is on stage k mod stages

  /// Those of one stage.
  std::vector<Chunk> chunks_of(int stage) const;
};

/// Multiply-adds of one token in each of so many pieces, head and MTP module in the last one.
std::vector<std::int64_t> piece_costs(const ModelConfig& model, const std::vector<int>& layers,
                                      double mean_length);

/// The layers of each piece, so that the largest stage costs as little as it can, and of these cuts
/// an even one. A cut between whole cycles of the layer pattern is taken where neither the largest
/// stage nor the sum of their squares is more than a fiftieth larger. The last piece, which has the
/// head, may have no layer; all others have one.
std::vector<int> balanced_cut(const ModelConfig& model, int stages, int chunks, double mean_length);

/// Reads `chunks` and `stage_layers` of the section `parallel`. What cannot be divided so is
/// refused with what can. `microbatches`: of a data rank in a step.
PipelineCut read_pipeline_cut(const Section& parallel, const ModelConfig& model, int stages,
                              int microbatches, double mean_length);

}  // namespace qnext
