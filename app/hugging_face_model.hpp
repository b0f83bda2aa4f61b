// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "layers/model.hpp"

namespace qnext {

struct HuggingFaceConfig;

/// The model that a config.json describes, without an MTP module and without balance losses, which
/// it does not mention.
ModelConfig model_config(const HuggingFaceConfig& config);

/// What config.json says of a model. One that transformers has no class for is an InputError.
HuggingFaceConfig hugging_face_config(const ModelConfig& model);

}  // namespace qnext
