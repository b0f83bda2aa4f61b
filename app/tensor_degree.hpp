// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/deck.hpp"
#include "layers/model.hpp"

namespace qnext {

/// Refuses parallel.tensor where tensor ranks could not share the heads evenly, or where one of
/// them would get no column, no token of the vocabulary or no token of a sequence, and names the
/// degrees that do.
void check_tensor_degree(const Section& parallel, int tensor, const ModelConfig& model,
                         int sequence);

}  // namespace qnext
