// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/text/tokenizer.hpp"

#include <optional>
#include <string>
#include <vector>

namespace qnext {

/// The tokens of texts for a model: those of its tokenizer, or without one the bytes.
class TextTokens {
 public:
  explicit TextTokens(std::optional<Tokenizer> tokenizer);

  std::vector<int> encode(const std::string& text);

  /// <|endoftext|>, where the tokenizer has it.
  std::optional<int> end() const;

  /// The file, or "bytes".
  std::string name() const;

 private:
  std::optional<Tokenizer> tokenizer_;
  std::optional<Encoder> encoder_;
};

}  // namespace qnext
