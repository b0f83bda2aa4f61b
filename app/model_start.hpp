// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/hugging_face_origin.hpp"
#include "app/run_config.hpp"
#include "core/parameter.hpp"

#include <cstdint>
#include <optional>

namespace qnext {

/// Gives the parameters their first values: random numbers, or those of a checkpoint, of the newest
/// checkpoint of a run folder, or of a Hugging Face folder; moved by one rounding where `init`
/// names a member of an ensemble. Adapters that are not there begin as nothing beside the weights.
/// Returns what checkpoints of the run keep of the folder that the model was in, if it was in one.
std::optional<HuggingFaceOrigin> start_weights(const InitSettings& init, std::uint64_t seed,
                                               const ParameterTable& table,
                                               const Communicator& world = {});

}  // namespace qnext
