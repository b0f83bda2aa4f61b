// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/data_stream.hpp"
#include "layers/model.hpp"

#include <cstdint>
#include <vector>

namespace qnext {

/// Copies a batch of the data to the device.
Microbatch to_device(const TokenBatch& batch);

/// Positions whose token after the next one belongs to the same document: the labels of multi-token
/// prediction.
std::int64_t mtp_label_count(const TokenBatch& batch);

/// Sum of squares of the lengths of the documents over their sum: the length that attention sees.
double mean_length(const std::vector<TokenBatch>& batches);

/// What activations for this batch have room for, with the documents of the largest one.
MicrobatchShape shape_of(const TokenBatch& batch, const MicrobatchShape& largest);

}  // namespace qnext
