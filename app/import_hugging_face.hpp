// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "parallel/communicator.hpp"

#include <string>
#include <vector>

namespace qnext {

/// Fills the table from the safetensors of a Hugging Face folder, converted to the types of the
/// table. Returns a line for each group of tensors of the folder that the model has no use for.
///
/// A tensor that is missing, unknown, or of another shape is an InputError. Two things may be left
/// over: mtp.* when the model has no MTP module, and lm_head.weight of a tied head if it equals the
/// embedding. All ranks of `world` call it, each with its own rows of the model.
std::vector<std::string> import_hugging_face(const std::string& folder, const ParameterTable& table,
                                             const Communicator& world = {});

/// Whether the folder holds mtp.* tensors: config.json does not say.
bool has_mtp_weights(const std::string& folder);

}  // namespace qnext
