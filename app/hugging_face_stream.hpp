// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/import_hugging_face.hpp"
#include "core/types.hpp"
#include "io/checkpoint_stream.hpp"
#include "io/posix_file.hpp"
#include "io/safetensors.hpp"
#include "layers/model.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace qnext {

/// The model of a Hugging Face folder, with an MTP module where its files hold one.
ModelConfig model_of_folder(const std::string& folder);

/// The weights of a Hugging Face folder without a model in memory: the numbers of a row pass by in
/// pieces of a few megabytes, in the type of the row.
class HuggingFaceStream {
 public:
  /// `table` need not be laid out. What the folder does not hold is refused, see
  /// hugging_face_sources.
  HuggingFaceStream(const SafetensorsFolder& folder, const ParameterTable& table);

  /// Nothing for an alias and for a row of an adapter.
  void operator()(const Parameter& row, const Sink& sink);

  /// Whether the types of the table hold every number of the folder.
  bool holds_all() const;

  const std::vector<std::string>& remarks() const { return sources_.remarks; }

 private:
  void stream(const std::string& name, NumberFormat to, const Sink& sink);
  const PosixFile& open(const std::string& path);

  const SafetensorsFolder& folder_;
  const ParameterTable& table_;
  HuggingFaceSources sources_;
  std::optional<PosixFile> file_;
  std::vector<std::byte> read_, converted_;
};

/// The lowest precision of the model that holds every number of a folder; f16 becomes float.
DataType precision_of_folder(const std::string& folder, const ModelConfig& model);

}  // namespace qnext
