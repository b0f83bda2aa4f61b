// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/deck.hpp"
#include "layers/model.hpp"

namespace qnext {

/// Reads the shapes of a model. With `folder`, the model of a Hugging Face folder, every key may be
/// absent, and one that is there has to say the same. What is no shape (balance loss, capacity,
/// chunk, recomputation) is the deck's alone.
ModelConfig read_model(const Section& model, const ModelConfig* folder);

}  // namespace qnext
