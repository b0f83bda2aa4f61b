// SPDX-License-Identifier: Apache-2.0
#include "app/run_data.hpp"

#include <algorithm>

namespace qnext {

RunData::RunData(const RunConfig& config) : training(config.training_stream()) {
  if (config.data.evaluates()) {
    evaluation.emplace(config.evaluation_stream());
  }
}

int RunData::most_documents() const {
  return std::max(training.most_documents(), evaluation ? evaluation->most_documents() : 1);
}

}  // namespace qnext
