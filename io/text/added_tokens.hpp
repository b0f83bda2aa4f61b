// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/text/regular_expression.hpp"

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace qnext {

/// A token that is found in the text before the text is split, as an entry of `added_tokens`.
struct AddedToken {
  int id = 0;
  std::string content = {};
  bool single_word = false;  // only where no letter, digit or mark touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = false;   // is looked for in the normalized text, else in the raw one
  bool special = false;      // is left out where special tokens are not wanted
};

/// Finds added tokens of one kind in a text: from left to right, at each place the longest.
class AddedTokens {
 public:
  /// Part of a text: an added token, or (id -1) what lies between two of them.
  struct Part {
    int id;
    std::string_view text;
  };

  explicit AddedTokens(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  void split(std::string_view text, std::vector<Part>& parts) const;

 private:
  const AddedToken* longest_at(std::string_view text, std::size_t at) const;
  bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) const;

  std::vector<AddedToken> tokens_;  // by first byte, then the longest first
  std::array<int, 257> begin_{};    // those that begin with byte b: begin_[b] ... begin_[b + 1] - 1
  RegularExpression word_;          // one character of a word
};

}  // namespace qnext
