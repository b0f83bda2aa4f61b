// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/checkpoint.hpp"
#include "io/number_format.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace qnext {

/// What a checkpoint keeps of the Hugging Face folder that its model was in, so that an export
/// gives it back: the texts beside the weights, and which tensors of which format there were. In
/// the file it is the record "hugging_face".
struct HuggingFaceOrigin {
  std::map<std::string, std::string> files;     // config.json, tokenizer.json, ...: their bytes
  std::map<std::string, NumberFormat> tensors;  // by their names in the folder
  std::int64_t updates = 0;                     // of the optimizer since then

  static HuggingFaceOrigin of_folder(const std::string& folder);

  /// Nothing where the model was in no folder.
  static std::optional<HuggingFaceOrigin> of_checkpoint(const CheckpointContent& content);

  Record record() const;
};

}  // namespace qnext
