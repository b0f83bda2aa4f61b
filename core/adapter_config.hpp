// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qnext {

/// Low-rank adapters beside some of the projections of a model (LoRA, Hu et al. 2021), which alone
/// are trained:
///
///     y = W x + scale B A x,   A (rank, in), B (out, rank)
struct AdapterConfig {
  int rank = 0;  // 0: no adapters, and every weight is trained
  double alpha = 8.0;
  bool rank_stabilised = false;           // Kalajdzievski 2023
  std::vector<std::string> targets = {};  // of the names of projections, one or more last words:
                                          // "q_proj", "layers.3.self_attn.q_proj"; of stacked
                                          // experts "experts" at least: "experts.down_proj"

  bool any() const { return rank > 0; }

  /// alpha / rank, rank stabilised alpha / sqrt(rank).
  double scale() const;

  /// Whether a projection W has an adapter. One of the module for multi-token prediction has it
  /// where a target is its whole name: nobody else has that module.
  bool targets_weight(std::string_view name) const;
};

/// "model.layers.3.self_attn.q_proj" of the name of its weight, which has ".weight" behind it. All
/// experts of a layer are one weight, whose name has nothing behind it:
/// "model.layers.3.mlp.experts.down_proj".
std::string projection_of(std::string_view weight);

/// The name of the weight of a projection.
std::string weight_of(std::string_view projection);

}  // namespace qnext
