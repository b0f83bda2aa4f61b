// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

struct ConvertedCheckpoint {
  DataType precision = DataType::float32;
  std::int64_t tensors = 0;  // of the folder
  std::int64_t bytes = 0;    // read from them
  std::vector<std::string> remarks;
};

/// Writes a checkpoint with the weights of a Hugging Face folder, without a model in memory. It has
/// the lowest precision that holds every number of the folder; f16 becomes float.
ConvertedCheckpoint checkpoint_from_hugging_face(const std::string& folder,
                                                 const std::string& checkpoint);

}  // namespace qnext
