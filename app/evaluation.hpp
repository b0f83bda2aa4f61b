// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/activations.hpp"
#include "io/data_stream.hpp"
#include "layers/model.hpp"
#include "parallel/communicator.hpp"

#include <cstdint>

namespace qnext {

struct EvaluationResult {
  double loss = 0.0;  // cross entropy, mean over every label, nats
  std::int64_t labels = 0;
};

/// The loss over all windows of the stream, in microbatches of at most `largest.sequences`, of
/// which each rank of `over` takes consecutive ones; the same bits on any number of ranks. Dropout
/// is off.
template <class Storage>
EvaluationResult evaluate(const Exec& exec, const Model<Storage>& model,
                          ActivationMemory<Storage>& memory, const MicrobatchShape& largest,
                          const EvaluationStream& stream, const Communicator& over);

}  // namespace qnext
