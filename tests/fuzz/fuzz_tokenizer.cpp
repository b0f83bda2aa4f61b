// SPDX-License-Identifier: Apache-2.0
#include "io/text/tokenizer.hpp"
#include "tests/fuzz/target.hpp"

#include <numeric>

namespace qnext::fuzz {
namespace {

std::string utf8_of(int letter) {
  return letter < 128 ? std::string(1, static_cast<char>(letter))
                      : std::string{static_cast<char>(0xc0 | letter >> 6),
                                    static_cast<char>(0x80 | (letter & 63))};
}

/// The letter that stands for a byte: itself if it can be seen, one from U+0100 on if not.
std::string letter_of(int byte) {
  const auto is_seen = [](int b) {
    return (b > 32 && b < 127) || (b > 160 && b < 256 && b != 173);
  };
  int hidden = 0;
  for (int b = 0; b < byte; ++b) {
    hidden += !is_seen(b);
  }
  return utf8_of(is_seen(byte) ? byte : 256 + hidden);
}

/// A token for each byte, two merges, one special token.
std::string small_tokenizer(const std::string& split) {
  std::string vocabulary;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string letter = letter_of(byte);
    vocabulary += (letter == "\"" || letter == "\\" ? "\"\\" + letter : "\"" + letter) +
                  "\":" + std::to_string(byte) + ",";
  }
  return R"({"version":"1.0","added_tokens":[{"id":258,"content":"<|end|>","single_word":false,)"
         R"("lstrip":false,"rstrip":false,"normalized":false,"special":true}],)"
         R"("normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[)"
         R"({"type":"Split","pattern":{"Regex":")" +
         split +
         R"("},"behavior":"Isolated","invert":false},{"type":"ByteLevel",)"
         R"("add_prefix_space":false,"trim_offsets":false,"use_regex":false}]},)"
         R"("decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,)"
         R"("use_regex":false},"model":{"type":"BPE","dropout":null,"unk_token":null,)"
         R"("merges":["a b","ab c"],"vocab":{)" +
         vocabulary + R"("ab":256,"abc":257}}})";
}

const std::string text = "abc <|end|> \xc3\xa4 ab 12\r\n  z\xf0\x9f\x99\x82 e\xcc\x81";

void encode_and_decode(const Tokenizer& tokenizer) {
  const std::vector<int> ids = tokenizer.encode(text);
  for (const int id : ids) {
    if (id < 0 || id >= tokenizer.size()) {
      throw std::logic_error("a text has an id that the tokenizer has not");
    }
  }
  std::vector<int> all(static_cast<std::size_t>(tokenizer.size()) + 2);
  std::iota(all.begin(), all.end(), -1);
  tokenizer.decode(all, Tokenizer::Special::leave_out);
}

}  // namespace

std::vector<std::string> seeds() {
  return {small_tokenizer(R"(\\p{L}+|\\p{N}| ?[^\\s\\p{L}]+|\\s+(?!\\S)|\\s+)"),
          small_tokenizer(R"((?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+)")};
}

std::vector<std::string> words() {
  return {"\\\\p{L}+", "(?:a*)*",    "(((",     "[^",      "(?R)",         "\\\\1",
          "\"NFD\"",   "\"Merged\"", "null",    "true",    "[]",           "\"ab c\"",
          "\"\":",     "9999999999", "\\u0000", "\\ud83d", "byte_fallback"};
}

}  // namespace qnext::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qnext;
  static const fuzz::MemoryFile file;
  file.write(data, size);
  return fuzz::refuse_or_accept([&] { fuzz::encode_and_decode(Tokenizer::read(file.path())); });
}
