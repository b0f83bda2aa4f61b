// SPDX-License-Identifier: Apache-2.0
#include "app/text_tokens.hpp"

#include <utility>

namespace qnext {

TextTokens::TextTokens(std::optional<Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {
  if (tokenizer_) {
    encoder_.emplace(*tokenizer_);
  }
}

std::vector<int> TextTokens::encode(const std::string& text) {
  std::vector<int> ids;
  if (encoder_) {
    encoder_->encode(text, ids);
  } else {
    for (const unsigned char byte : text) {
      ids.push_back(byte);
    }
  }
  return ids;
}

std::optional<int> TextTokens::end() const {
  return tokenizer_ ? tokenizer_->added_token("<|endoftext|>") : std::nullopt;
}

std::string TextTokens::name() const {
  return tokenizer_ ? tokenizer_->path() : "bytes";
}

}  // namespace qnext
