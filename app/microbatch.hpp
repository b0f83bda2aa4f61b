// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/data_stream.hpp"
#include "layers/model.hpp"
#include "parallel/communicator.hpp"
#include "parallel/process_grid.hpp"

#include <cstdint>
#include <vector>

namespace qnext {

/// Copies a batch of the data to the device: of each sequence the piece of this context rank.
Microbatch to_device(const TokenBatch& batch, const ProcessGrid& grid = {});

/// The batch with a last document of ignored tokens (id 0, no labels), so that each of `ranks`
/// context ranks gets equally many tokens, at least `piece`. Batches of several sequences come out
/// even as they are.
TokenBatch fill_up(TokenBatch batch, int ranks, int piece);

/// What the batches of a step hold, in whole numbers: ranks add them.
struct BatchCounts {
  std::int64_t tokens = 0;
  std::int64_t labels = 0;
  std::int64_t mtp_labels = 0;
  std::int64_t lengths = 0;  // of the documents
  std::int64_t squares = 0;  // of the lengths

  /// The length that attention sees.
  double mean_length() const;
};

/// Of these batches and those of the other ranks.
BatchCounts count(const std::vector<TokenBatch>& batches, const Communicator& over);

/// What activations for the piece of this batch that one of `context` ranks takes have room for,
/// with the documents of the largest one.
MicrobatchShape shape_of(const TokenBatch& batch, const MicrobatchShape& largest, int context);

}  // namespace qnext
