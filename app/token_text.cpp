// SPDX-License-Identifier: Apache-2.0
#include "app/token_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace qnext {
namespace {

class Bytes final : public TokenText {
 public:
  std::vector<int> tokens_of(std::string_view text) const override {
    std::vector<int> tokens;
    for (const char byte : text) {
      tokens.push_back(static_cast<unsigned char>(byte));
    }
    return tokens;
  }
  std::string text_of(int token) const override {
    return token < 256 ? std::string(1, static_cast<char>(token)) : fmt::format("<{}>", token);
  }
  std::optional<int> added_token(std::string_view) const override { return std::nullopt; }
};

class Tokens final : public TokenText {
 public:
  explicit Tokens(Tokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {}

  std::vector<int> tokens_of(std::string_view text) const override {
    return tokenizer_.encode(text);
  }
  std::string text_of(int token) const override { return std::string(tokenizer_.bytes(token)); }
  std::optional<int> added_token(std::string_view content) const override {
    return tokenizer_.added_token(content);
  }

 private:
  Tokenizer tokenizer_;
};

class Numbers final : public TokenText {
 public:
  explicit Numbers(std::unique_ptr<TokenText> other) : other_(std::move(other)) {}

  std::vector<int> tokens_of(std::string_view text) const override {
    return other_->tokens_of(text);
  }
  std::string text_of(int token) const override { return fmt::format("{} ", token); }
  std::optional<int> added_token(std::string_view content) const override {
    return other_->added_token(content);
  }

 private:
  std::unique_ptr<TokenText> other_;
};

}  // namespace

std::unique_ptr<TokenText> bytes_as_tokens() {
  return std::make_unique<Bytes>();
}

std::unique_ptr<TokenText> tokens_of(Tokenizer tokenizer) {
  return std::make_unique<Tokens>(std::move(tokenizer));
}

std::unique_ptr<TokenText> as_numbers(std::unique_ptr<TokenText> other) {
  return std::make_unique<Numbers>(std::move(other));
}

std::size_t StopTexts::find(std::string_view text) const {
  std::size_t first = std::string_view::npos;
  for (const std::string& stop : stops_) {
    first = std::min(first, text.find(stop));
  }
  return first;
}

std::size_t StopTexts::settled(std::string_view text) const {
  std::size_t open = 0;  // longest end of the text that begins one of them
  for (const std::string& stop : stops_) {
    for (std::size_t n = std::min(stop.size() - 1, text.size()); n > open; --n) {
      if (text.ends_with(std::string_view(stop).substr(0, n))) {
        open = n;
      }
    }
  }
  return text.size() - open;
}

}  // namespace qnext
