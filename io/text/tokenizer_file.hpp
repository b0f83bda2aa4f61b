// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/text/added_tokens.hpp"
#include "io/text/byte_pair_encoding.hpp"

#include <array>
#include <string>
#include <unordered_map>
#include <vector>

namespace qnext {

/// What a `tokenizer.json` of byte-level byte-pair encoding says, checked: ids are 0, 1, 2, ...
/// without a gap, every byte has a token, every merge names tokens that are there. What would make
/// other tokens of a text is honoured or refused with its key.
struct TokenizerFile {
  std::string path = {};
  std::vector<std::string> tokens = {};                   // (ids)  the bytes that each stands for
  std::array<int, 256> bytes = {};                        // the token of each byte
  std::vector<Merge> merges = {};                         // in their order
  std::unordered_map<std::string, int> whole_words = {};  // are tokens without any merge
  bool composed = false;                 // texts are brought into normal form C first
  std::vector<std::string> splits = {};  // expressions for PCRE2, one after the other
  std::vector<AddedToken> added = {};

  /// `path`: the file, or a folder that has one of that name.
  static TokenizerFile read(const std::string& path);
  /// Its text, from a place of that name.
  static TokenizerFile parse(const std::string& text, const std::string& path);
};

}  // namespace qnext
