// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/text/tokenizer.hpp"

#include <string>

namespace qnext {

/// Tokens to text, one by one: what comes out together is the text of all tokens together. A
/// character that several tokens make up comes out with the last of them.
class TextDecoder {
 public:
  explicit TextDecoder(const Tokenizer& tokenizer,
                       Tokenizer::Special special = Tokenizer::Special::keep)
      : tokenizer_(tokenizer), special_(special) {}

  /// The text that is certain with this token, maybe none.
  std::string add(int id);

  /// U+FFFD where the tokens end within a character. The decoder then begins anew.
  std::string finish();

 private:
  std::string take_whole();

  Tokenizer tokenizer_;
  Tokenizer::Special special_;
  std::string pending_;  // of a character whose end has not come
};

}  // namespace qnext
