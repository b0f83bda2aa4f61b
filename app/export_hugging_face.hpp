// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/number_format.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qnext {

struct ExportSettings {
  std::int64_t shard_bytes = 5'000'000'000;
  std::optional<NumberFormat> format;  // of all tensors; absent: see export_hugging_face
};

struct ExportedFolder {
  std::int64_t tensors = 0;
  std::int64_t bytes = 0;  // of these
  int files = 0;
  std::string dtype;                      // of config.json
  std::vector<std::string> remarks = {};  // on tensors that the model has no use for
};

/// Writes the parameters of a checkpoint as a Hugging Face folder, without a model in memory. The
/// folder must not be there; it appears when it is whole.
///
/// Where the model came from such a folder, this one has its tensors and the files beside them:
/// the same bytes where no step of training lies between and the checkpoint held every number.
/// Otherwise tensors have the types of the checkpoint: in a bf16 model matrices are BF16 and what
/// it keeps in float is F32. Adapters are merged into their weights, W + scale B A.
ExportedFolder export_hugging_face(const std::string& checkpoint, const std::string& folder,
                                   const ExportSettings& settings);

/// Writes the Hugging Face folder `from` with an adapter of PEFT merged into its weights: the
/// tensors of that folder in their types, those with an adapter as W + scale B A, added in double
/// and rounded once, and the files beside them. No model is in memory.
ExportedFolder merge_hugging_face(const std::string& from, const std::string& adapter,
                                  const std::string& to, const ExportSettings& settings);

}  // namespace qnext
