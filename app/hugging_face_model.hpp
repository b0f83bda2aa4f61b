// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "layers/model.hpp"

#include <string>

namespace qnext {

struct HuggingFaceConfig;

/// The model that a config.json describes, without an MTP module and without balance losses, which
/// it does not mention.
ModelConfig model_config(const HuggingFaceConfig& config);

}  // namespace qnext
