// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/run_config.hpp"
#include "core/types.hpp"
#include "io/text/chat.hpp"
#include "io/text/tokenizer.hpp"
#include "layers/model.hpp"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace qnext {

/// What a user may name where a trained model is wanted.
enum class ModelKind { deck, run_folder, checkpoint, hugging_face };

/// By what is there; throws InputError where it is none of these.
ModelKind model_kind(const std::string& path);

/// A trained model: its shapes and where its weights are.
struct ModelSource {
  ModelConfig model;
  DataType precision = DataType::float32;
  InitSettings weights;
  int sequence = 0;       // tokens that it was trained with; 0: not known
  std::string tokenizer;  // tokenizer.json or its folder; empty: `file` may know one

  std::map<std::string, std::string> files;  // that a checkpoint keeps of a Hugging Face folder

  /// The bytes of a file beside the weights of the Hugging Face folder that the model is or was in.
  std::optional<std::string> file(const std::string& name) const;
  /// What messages call it.
  std::string name_of_file(const std::string& name) const;
};

/// A deck stands for its run folder. `precision` may be empty: that of the checkpoint, or float for
/// a Hugging Face folder. `adapter`: a folder of PEFT whose adapters come beside the weights of a
/// Hugging Face folder; empty: none.
ModelSource find_model(const std::string& path, const std::vector<std::string>& overrides,
                       const std::string& precision, const std::string& adapter = "");

/// The tokenizer at `path`, or if that is empty the one of the model: beside its weights, that of
/// its deck, or in its checkpoint. None: bytes are tokens.
std::optional<Tokenizer> find_tokenizer(const ModelSource& source, const std::string& path);

/// What the chat template beside that tokenizer is.
ChatStyle find_chat_style(const ModelSource& source, const std::string& path);

}  // namespace qnext
