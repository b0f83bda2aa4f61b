// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/gradient_window.hpp"
#include "core/parameter.hpp"
#include "layers/model.hpp"
#include "parallel/process_grid.hpp"

#include <cstdint>
#include <limits>
#include <vector>

namespace qnext {

/// A model with the memory of its weights, and of their gradients where they are wanted, which are
/// sent in buckets of so many bytes and, with `zero` = 2, have their memory in turns.
template <class Storage>
struct TrainedModel {
  ParameterTable table;
  Model<Storage> model;

  TrainedModel(const ModelConfig& config, bool with_gradients, const ProcessGrid& grid = {},
               const std::vector<Chunk>& chunks = {},
               std::int64_t bucket = std::numeric_limits<std::int64_t>::max(), int zero = 1)
      : table(bucket), model(config, grid, table, chunks) {
    if (with_gradients && zero == 2) {
      const GradientWindow window(table, model.backward_pieces());
      table.lay_out(window.begins(), window.bytes);
    } else {
      table.lay_out(with_gradients);
    }
  }
};

}  // namespace qnext
