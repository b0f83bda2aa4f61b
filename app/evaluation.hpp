// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/activations.hpp"
#include "app/stage_messages.hpp"
#include "io/data_stream.hpp"
#include "layers/model.hpp"
#include "parallel/process_grid.hpp"

#include <cstdint>

namespace qnext {

struct EvaluationResult {
  double loss = 0.0;  // cross entropy, mean over every label, nats
  std::int64_t labels = 0;
};

/// The loss over all windows of the stream, in microbatches of at most `largest.sequences`, of
/// which each data rank takes consecutive ones; the same bits on any number of data ranks. Dropout
/// is off. Windows that context ranks cannot share evenly are filled up. The ranks of a stage,
/// which may share experts out, make equally many calls: who has none left computes a window once
/// more and does not count it.
template <class Storage>
EvaluationResult evaluate(const Exec& exec, const Model<Storage>& model,
                          ActivationMemory<Storage>& memory, const StageMessages<Storage>& messages,
                          const MicrobatchShape& largest, const EvaluationStream& stream,
                          const ProcessGrid& grid);

}  // namespace qnext
