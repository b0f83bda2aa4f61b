// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/text/tokenizer.hpp"
#include "tests/temporary_folder.hpp"

#include <nlohmann/json.hpp>

#include <string>
#include <utility>
#include <vector>

namespace qnext::test {

/// The character that stands for a byte in a byte-level vocabulary: itself where it is printable in
/// Latin-1, else the next one from U+0100 on.
inline std::string spelling_of_byte(int byte) {
  const auto printable = [](int b) {
    return (b > 0x20 && b < 0x7F) || (b > 0xA0 && b <= 0xFF && b != 0xAD);
  };
  int character = byte;
  if (!printable(byte)) {
    character = 0x100;
    for (int b = 0; b < byte; ++b) {
      character += printable(b) ? 0 : 1;
    }
  }
  if (character < 0x80) {
    return std::string(1, static_cast<char>(character));
  }
  return {static_cast<char>(0xC0 | (character >> 6)), static_cast<char>(0x80 | (character & 0x3F))};
}

inline std::string spelling(const std::string& bytes) {
  std::string spelled;
  for (const unsigned char byte : bytes) {
    spelled += spelling_of_byte(byte);
  }
  return spelled;
}

/// A tokenizer.json in the form of the published ones: ids 0 to 255 are the bytes, then one for
/// each merge, then <|endoftext|>, <|im_start|> and <|im_end|>.
inline nlohmann::ordered_json tokenizer_json(
    const std::vector<std::pair<std::string, std::string>>& merges) {
  using Json = nlohmann::ordered_json;
  Json vocab = Json::object(), list = Json::array(), added = Json::array();
  int id = 0;
  for (; id < 256; ++id) {
    vocab[spelling_of_byte(id)] = id;
  }
  for (const auto& [left, right] : merges) {
    list.push_back({spelling(left), spelling(right)});
    vocab[spelling(left + right)] = id++;
  }
  for (const char* const content : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    added.push_back({{"id", id++},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const char* const expression =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
      R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer",
           {{"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Split"},
               {"pattern", {{"Regex", expression}}},
               {"behavior", "Isolated"},
               {"invert", false}},
              {{"type", "ByteLevel"},
               {"add_prefix_space", false},
               {"trim_offsets", false},
               {"use_regex", false}}}}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"dropout", nullptr}, {"vocab", vocab}, {"merges", list}}}};
}

/// With a few merges of English and of the two bytes of an e with an acute accent.
inline nlohmann::ordered_json small_tokenizer_json() {
  return tokenizer_json({{"t", "h"},
                         {"th", "e"},
                         {" ", "the"},
                         {"i", "n"},
                         {"in", "g"},
                         {"\xc3", "\xa9"},
                         {"a", "n"},
                         {"an", "d"},
                         {"h", "e"},
                         {"\n", "\n"}});
}

inline Tokenizer read_tokenizer(const nlohmann::ordered_json& json) {
  const TemporaryFolder folder;
  write_bytes(folder / "tokenizer.json", json.dump());
  return Tokenizer::read(folder.path());
}

}  // namespace qnext::test
