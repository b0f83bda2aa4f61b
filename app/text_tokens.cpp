// SPDX-License-Identifier: Apache-2.0
#include "app/text_tokens.hpp"

#include <filesystem>

namespace qnext {

TextTokens::TextTokens(const std::string& tokenizer, const std::string& model) {
  const std::filesystem::path beside = std::filesystem::path(model) / "tokenizer.json";
  if (!tokenizer.empty()) {
    tokenizer_ = Tokenizer::read(tokenizer);
  } else if (std::filesystem::exists(beside)) {
    tokenizer_ = Tokenizer::read(beside.string());
  }
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
