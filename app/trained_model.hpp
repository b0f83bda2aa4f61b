// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "layers/model.hpp"
#include "parallel/process_grid.hpp"

#include <cstdint>
#include <limits>
#include <vector>

namespace qnext {

/// A model with the memory of its weights, and of their gradients where they are wanted, which are
/// sent in buckets of so many bytes.
template <class Storage>
struct TrainedModel {
  ParameterTable table;
  Model<Storage> model;

  TrainedModel(const ModelConfig& config, bool with_gradients, const ProcessGrid& grid = {},
               const std::vector<Chunk>& chunks = {},
               std::int64_t bucket = std::numeric_limits<std::int64_t>::max())
      : table(bucket), model(config, grid, table, chunks) {
    table.lay_out(with_gradients);
  }
};

}  // namespace qnext
