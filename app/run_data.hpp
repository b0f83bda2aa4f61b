// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/run_config.hpp"
#include "io/data_stream.hpp"

#include <optional>

namespace qnext {

/// The data of a run. Opened once: with a tokenizer, texts become tokens here, which stay in
/// memory.
struct RunData {
  TokenStream training;
  std::optional<EvaluationStream> evaluation;

  explicit RunData(const RunConfig& config);

  /// Pieces of documents that a sequence holds at most.
  int most_documents() const;
};

}  // namespace qnext
