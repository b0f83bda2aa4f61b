// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/text/added_tokens.hpp"
#include "io/text/byte_pair_encoding.hpp"
#include "io/text/regular_expression.hpp"
#include "io/text/word_cache.hpp"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qnext {

/// Texts to token ids and back, as a `tokenizer.json` of byte-level byte-pair encoding says. It
/// does not change once it is read, so that threads share it.
class Tokenizer {
 public:
  /// `path`: a tokenizer.json, or a folder that has one.
  static Tokenizer read(const std::string& path);
  /// The text of a tokenizer.json, from a place of that name.
  static Tokenizer parse(const std::string& text, const std::string& path);

  const std::string& path() const;

  /// How many ids there are, 0 to size() - 1; a model may have more rows.
  int size() const;

  /// The bytes of a token, which need not be whole characters; none for an id that is none.
  std::string_view bytes(int id) const;
  bool is_special(int id) const;

  /// The added token that is written like this.
  std::optional<int> added_token(std::string_view content) const;

  /// Of one text, which must be whole UTF-8. For many texts, an Encoder is faster.
  std::vector<int> encode(std::string_view text) const;

  enum class Special { keep, leave_out };

  /// What is no whole character becomes U+FFFD.
  std::string decode(const std::vector<int>& ids, Special special = Special::keep) const;

 private:
  friend class Encoder;
  struct Tables;

  Tokenizer() = default;

  std::shared_ptr<const Tables> tables_;
};

/// Encodes text after text, for one thread: it remembers the tokens of the words that it met.
class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer);

  /// Appends the ids of a text. Throws InputError where the text is not whole UTF-8.
  void encode(std::string_view text, std::vector<int>& ids);

 private:
  template <class Next>
  void without_added(const AddedTokens& added, std::string_view text, std::vector<int>& ids,
                     const Next& next);
  void split(std::string_view text, std::size_t stage, std::vector<int>& ids);
  void encode_word(std::string_view word, std::vector<int>& ids);

  std::shared_ptr<const Tokenizer::Tables> tables_;
  std::vector<RegularExpression::Matcher> matchers_;  // one for each split
  BytePairEncoding pairs_;
  WordCache cache_;
  std::string buffer_;
};

}  // namespace qnext
