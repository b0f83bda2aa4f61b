// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/deck.hpp"
#include "layers/model.hpp"

#include <string>
#include <vector>

namespace qnext {

/// The projections of a model that an adapter can be beside, by their whole names:
/// "model.layers.3.self_attn.q_proj", "model.layers.3.mlp.experts.down_proj" of all experts of a
/// layer, and at last those of the module for multi-token prediction, "mtp.fc".
std::vector<std::string> adapter_projections(const ModelConfig& model);

/// Those that have one.
std::vector<std::string> adapted_projections(const AdapterConfig& adapters,
                                             const ModelConfig& model);

/// The first of the targets that names none of them, with the names that there are, as a sentence;
/// empty where each names one.
std::string unknown_target(const std::vector<std::string>& targets, const ModelConfig& model);

/// What the section `fine_tune` says.
struct FineTune {
  AdapterConfig adapters = {};  // that the model has beside its weights
  std::string adapter = {};     // folder of PEFT that they begin with; empty: none
};
FineTune read_fine_tune(const Section& fine_tune, const ModelConfig& model);

}  // namespace qnext
