// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/text/tokenizer.hpp"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qnext {

/// Text as tokens, and tokens as pieces of text: a tokenizer.
class TokenText {
 public:
  virtual ~TokenText() = default;

  virtual std::vector<int> tokens_of(std::string_view text) const = 0;

  /// The bytes that a token adds to a text. A character may need those of several tokens.
  virtual std::string text_of(int token) const = 0;

  /// The token that is written like this and stands for itself, if there is one.
  virtual std::optional<int> added_token(std::string_view content) const = 0;
};

/// Every byte is a token; other tokens are shown as numbers in angles.
std::unique_ptr<TokenText> bytes_as_tokens();

std::unique_ptr<TokenText> tokens_of(Tokenizer tokenizer);

/// The tokens of another one, shown as numbers.
std::unique_ptr<TokenText> as_numbers(std::unique_ptr<TokenText> other);

/// The places where texts end: what is before the first of `stops`, and how much of it cannot be
/// the begin of one.
class StopTexts {
 public:
  explicit StopTexts(const std::vector<std::string>& stops) : stops_(stops) {}

  /// Where the first of them begins in `text`, or npos.
  std::size_t find(std::string_view text) const;

  /// How many bytes of `text`, which has none of them, stay whatever comes behind.
  std::size_t settled(std::string_view text) const;

 private:
  const std::vector<std::string>& stops_;
};

}  // namespace qnext
