// SPDX-License-Identifier: Apache-2.0
#include "core/random.hpp"
#include "io/text/byte_pair_encoding.hpp"
#include "io/text/text_decoder.hpp"
#include "io/text/tokenizer.hpp"
#include "io/text/utf8.hpp"
#include "tests/tokenizer_case.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

namespace qnext {
namespace {

using test::message_of;
using test::read_tokenizer;
using test::small_tokenizer_json;
using Ids = std::vector<int>;

// The small tokenizer's ids: 256 th, 257 the, 258 " the", 259 in, 260 ing, 261 e acute, 262 an,
// 263 and, 264 he, 265 two line breaks, 266 <|endoftext|>, 267 <|im_start|>, 268 <|im_end|>.
TEST(Tokenizer, JoinsTheEarliestMergeFirst) {
  const Tokenizer tokenizer = read_tokenizer(small_tokenizer_json());
  EXPECT_EQ(tokenizer.size(), 269);
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.encode("the the"), (Ids{257, 258}));
  EXPECT_EQ(tokenizer.encode("he then"), (Ids{264, 258, 'n'}));  // th comes before he
  EXPECT_EQ(tokenizer.encode("thing"), (Ids{256, 260}));
  EXPECT_EQ(tokenizer.encode("a\n\nb"), (Ids{'a', 265, 'b'}));
  EXPECT_EQ(tokenizer.encode("e\u0301"), Ids{261});  // NFC comes first
  EXPECT_EQ(tokenizer.encode("and<|im_end|>\n"), (Ids{263, 268, '\n'}));
  EXPECT_EQ(tokenizer.encode("<|im_end|"), (Ids{'<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|'}));
  EXPECT_EQ(tokenizer.encode("t<|im_end|>he"), (Ids{'t', 268, 264}));
}

TEST(Tokenizer, AWordThatIsATokenNeedsNoMerge) {
  auto json = small_tokenizer_json();
  json["model"]["merges"].erase(2);  // " the" stays in the vocabulary
  EXPECT_EQ(read_tokenizer(json).encode(" the"), (Ids{' ', 257}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(read_tokenizer(json).encode(" the the"), (Ids{258, 258}));
}

TEST(Tokenizer, ReadsBothFormsOfMerges) {
  auto json = small_tokenizer_json();
  for (auto& merge : json["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  EXPECT_EQ(read_tokenizer(json).encode(" the thing"), (Ids{258, ' ', 256, 260}));
}

TEST(Tokenizer, SplitsAsTheFileSays) {
  auto json = small_tokenizer_json();
  const auto whole = [&] { return read_tokenizer(json).encode("the and"); };
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"use_regex", false}};
  EXPECT_EQ(whole(), (Ids{257, ' ', 263}));
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"String", "h."}}}, {"behavior", "Isolated"}},
        {{"type", "ByteLevel"}, {"use_regex", true}}}}};
  EXPECT_EQ(read_tokenizer(json).encode("th.the"), (Ids{'t', 'h', '.', 257}));
  // With an expression of its own, the blank goes with the word.
  EXPECT_EQ(read_tokenizer(json).encode("a the"), (Ids{'a', 258}));
}

Ids with_flags(const std::string& text, const std::vector<std::string>& flags,
               const std::string& content = "<x>") {
  auto json = small_tokenizer_json();
  nlohmann::ordered_json token = {{"id", 269}, {"content", content}};
  for (const std::string& flag : flags) {
    token[flag] = true;
  }
  json["added_tokens"].push_back(token);
  return read_tokenizer(json).encode(text);
}

TEST(Tokenizer, HonoursTheFlagsOfAddedTokens) {
  EXPECT_EQ(with_flags("a <x>\u00a0 b", {}), (Ids{'a', ' ', 269, 0xC2, 0xA0, ' ', 'b'}));
  EXPECT_EQ(with_flags("a <x>\u00a0 b", {"rstrip"}), (Ids{'a', ' ', 269, 'b'}));
  EXPECT_EQ(with_flags("a <x>\u3000b", {"lstrip", "rstrip"}), (Ids{'a', 269, 'b'}));
  EXPECT_EQ(with_flags(" <x> <x> ", {"lstrip", "rstrip"}), (Ids{269, 269}));
  EXPECT_EQ(with_flags("awx wx wxb wx.", {"single_word"}, "wx"),
            (Ids{'a', 'w', 'x', ' ', 269, ' ', 'w', 'x', 'b', ' ', 269, '.'}));
  EXPECT_EQ(with_flags("wx\u0301", {"single_word"}, "wx"), (Ids{'w', 'x', 0xCC, 0x81}));
  // Only what is looked for in the normalized text meets the composed form.
  EXPECT_EQ(with_flags("e\u0302\u0323", {"normalized"}, "\u1ec7"), Ids{269});
  EXPECT_EQ(with_flags("e\u0302\u0323", {"normalized"}, "e\u0323\u0302"), Ids{269});
  EXPECT_EQ(with_flags("e\u0302\u0323", {}, "\u1ec7"), (Ids{0xE1, 0xBB, 0x87}));
  // The longest at a place.
  EXPECT_EQ(with_flags("<|im_end|>>", {}, "<|im_end|>>"), Ids{269});
}

TEST(Tokenizer, DecodesBytesOfAllTokensTogether) {
  const Tokenizer tokenizer = read_tokenizer(small_tokenizer_json());
  EXPECT_EQ(tokenizer.decode({257, 258, 268}), "the the<|im_end|>");
  EXPECT_EQ(tokenizer.decode({257, 268, 258}, Tokenizer::Special::leave_out), "the the");
  EXPECT_EQ(tokenizer.decode({0xF0, 0x9F, 0x98, 0x80}), "\U0001f600");
  EXPECT_EQ(tokenizer.decode({0xF0, 0x9F, 'a', 0xC3}), "\ufffda\ufffd");
  EXPECT_EQ(tokenizer.decode({0xFF, 0xFE}), "\ufffd\ufffd");
  EXPECT_EQ(tokenizer.decode({'a', 100000, -1, 'b'}), "ab");  // rows without a token
  EXPECT_EQ(tokenizer.added_token("<|im_start|>"), 267);
  EXPECT_EQ(tokenizer.added_token("the"), std::nullopt);
}

// Any text comes back in its normal form; streamed, each piece ends with a whole character.
TEST(Tokenizer, RandomTextsComeBack) {
  const Tokenizer tokenizer = read_tokenizer(small_tokenizer_json());
  const std::uint64_t key = random_key(1, "texts");
  std::uint64_t counter = 0;
  const auto random = [&](int below) {
    return static_cast<int>(random_uniform(key, counter++) * below);
  };
  const std::vector<std::string> pieces{"the",        " ",      "and", "\n",  "\u00e9",
                                        "\U0001f600", "'s",     "1",   "\t",  "<|im_end|>",
                                        "\u4f60",     "\u0639", ".",   "inhe"};
  for (int n = 0; n < 500; ++n) {
    std::string text;
    for (int i = random(40); i > 0; --i) {
      text += pieces[random(static_cast<int>(pieces.size()))];
    }
    const Ids ids = tokenizer.encode(text);
    EXPECT_EQ(tokenizer.decode(ids), text);
    TextDecoder decoder(tokenizer);
    std::string streamed;
    for (const int id : ids) {
      const std::string piece = decoder.add(id);
      EXPECT_EQ(first_broken_utf8(piece), piece.size());
      streamed += piece;
    }
    EXPECT_EQ(streamed + decoder.finish(), text);
  }
}

// The definition: look through all neighbours for the earliest merge, join, look again.
Ids joined(Ids ids, const std::vector<Merge>& merges) {
  for (;;) {
    std::size_t best = merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      for (std::size_t rank = 0; rank < best; ++rank) {
        if (merges[rank].left == ids[i] && merges[rank].right == ids[i + 1]) {
          best = rank;
          at = i;
        }
      }
    }
    if (best == merges.size()) {
      return ids;
    }
    ids[at] = merges[best].merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(BytePairEncoding, EqualsItsDefinition) {
  std::array<int, 256> bytes;
  std::iota(bytes.begin(), bytes.end(), 0);
  const std::uint64_t key = random_key(1, "merges");
  std::uint64_t counter = 0;
  const auto random = [&](int below) {
    return static_cast<int>(random_uniform(key, counter++) * below);
  };
  for (int n = 0; n < 200; ++n) {
    // Tokens over three letters; a merge of two known tokens makes the next one.
    std::vector<Merge> merges;
    Ids tokens{'a', 'b', 'c'};
    for (int i = 0; i < 30; ++i) {
      const Merge merge{tokens[random(static_cast<int>(tokens.size()))],
                        tokens[random(static_cast<int>(tokens.size()))], 256 + i};
      const bool again = std::any_of(merges.begin(), merges.end(), [&](const Merge& m) {
        return m.left == merge.left && m.right == merge.right;
      });
      if (!again) {
        merges.push_back(merge);
        tokens.push_back(merge.merged);
      }
    }
    const MergeTable table(bytes, merges, "x");
    BytePairEncoding pairs(table);
    for (const int length : {1, 2, 7, 40, 150}) {
      std::string word;
      for (int i = 0; i < length; ++i) {
        word += static_cast<char>('a' + random(3));
      }
      Ids ids;
      pairs.encode(word, ids);
      EXPECT_EQ(ids, joined(Ids(word.begin(), word.end()), merges)) << word;
    }
  }
}

// A word of a million letters: with the square of its length this takes hours.
TEST(BytePairEncoding, TakesLongWordsInItsStride) {
  const Tokenizer tokenizer = read_tokenizer(test::tokenizer_json({{"a", "a"}, {"aa", "aa"}}));
  EXPECT_EQ(tokenizer.encode(std::string(1'000'002, 'a')).size(), 250'001u);
}

// More words than the cache holds, some of them again and again.
TEST(Encoder, ForgetsNothingThatMatters) {
  const Tokenizer tokenizer = read_tokenizer(small_tokenizer_json());
  Encoder encoder(tokenizer);
  for (int i = 0; i < 200'000; ++i) {
    std::string word = " the";
    for (int rest = i; rest > 0; rest /= 26) {
      word += static_cast<char>('a' + rest % 26);
    }
    Ids ids;
    encoder.encode(word, ids);
    ASSERT_EQ(tokenizer.decode(ids), word);
    ASSERT_EQ(ids.front(), 258);
    if (i % 1000 == 0) {
      ASSERT_EQ(ids, tokenizer.encode(word));
    }
  }
}

TEST(Encoder, RefusesWhatIsNotUtf8) {
  const Tokenizer tokenizer = read_tokenizer(small_tokenizer_json());
  EXPECT_EQ(message_of([&] { tokenizer.encode("abc\xc3"); }), "the text is not UTF-8 at byte 3");
}

struct Hostile {
  const char* message;
  void (*edit)(nlohmann::ordered_json&);
};

const Hostile hostile[] = {
    {"model: is missing", [](auto& j) { j.erase("model"); }},
    {"model.type: WordPiece is not supported, expected BPE",
     [](auto& j) { j["model"]["type"] = "WordPiece"; }},
    {"model.dropout: 0.1 is not supported, expected none",
     [](auto& j) { j["model"]["dropout"] = 0.1; }},
    {"model.byte_fallback: true is not supported, expected none",
     [](auto& j) { j["model"]["byte_fallback"] = true; }},
    {"model.weight: is a key that is not supported", [](auto& j) { j["model"]["weight"] = 1; }},
    {"truncation: {\"max_length\":4} is not supported, expected none",
     [](auto& j) {
       j["truncation"] = {{"max_length", 4}};
     }},
    {"model.vocab: \"the\" has the id -1, expected 0 to 16777215",
     [](auto& j) { j["model"]["vocab"]["the"] = -1; }},
    {"model.vocab: \"the\" has the id 99999999999, expected 0 to 16777215",
     [](auto& j) { j["model"]["vocab"]["the"] = 99999999999; }},
    {"model.vocab: \"he\" and \"zz\" have the same id 264",
     [](auto& j) { j["model"]["vocab"]["zz"] = 264; }},
    {"model.vocab: 270 tokens have ids up to 300, expected no gap",
     [](auto& j) { j["model"]["vocab"]["zz"] = 300; }},
    {"model.vocab: has no token for the byte 65", [](auto& j) { j["model"]["vocab"].erase("A"); }},
    {"model.vocab: the = \"x\": is text, wanted is an integer",
     [](auto& j) { j["model"]["vocab"]["the"] = "x"; }},
    {"model.merges[0]: \"t h e\" is not two tokens with a blank between",
     [](auto& j) { j["model"]["merges"][0] = "t h e"; }},
    {"model.merges[1]: has 3 tokens, expected 2",
     [](auto& j) {
       j["model"]["merges"][1] = {"a", "b", "c"};
     }},
    {"model.merges[1]: the token \"zz\" is not in the vocabulary",
     [](auto& j) {
       j["model"]["merges"][1] = {"zz", "a"};
     }},
    {"model.merges[1]: the token \"ab\" is not in the vocabulary",
     [](auto& j) {
       j["model"]["merges"][1] = {"a", "b"};
     }},
    {" merges 0 and 10 join the same two tokens",
     [](auto& j) {
       j["model"]["merges"].push_back({"t", "h"});
     }},
    {"added_tokens[3].content: is empty",
     [](auto& j) {
       j["added_tokens"].push_back({{"id", 269}, {"content", ""}});
     }},
    {"added_tokens[3].content: \"<|im_end|>\" stands twice",
     [](auto& j) {
       j["added_tokens"].push_back({{"id", 269}, {"content", "<|im_end|>"}});
     }},
    {"added_tokens[3]: \"<|im_end|>\" and \"<y>\" have the same id 268",
     [](auto& j) {
       j["added_tokens"].push_back({{"id", 268}, {"content", "<y>"}});
     }},
    {"added_tokens[3].id: is 269, but the vocabulary gives \"the\" the id 257",
     [](auto& j) {
       j["added_tokens"].push_back({{"id", 269}, {"content", "the"}});
     }},
    {"normalizer.type: NFKC is not supported, expected NFC or none",
     [](auto& j) { j["normalizer"]["type"] = "NFKC"; }},
    {"normalizer.normalizers.type: Lowercase is not supported",
     [](auto& j) {
       j["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}};
     }},
    {"pre_tokenizer: has no ByteLevel, which alone is supported",
     [](auto& j) { j["pre_tokenizer"] = nullptr; }},
    {"pre_tokenizer.type: Metaspace is not supported, expected Split, ByteLevel or Sequence",
     [](auto& j) {
       j["pre_tokenizer"] = {{"type", "Metaspace"}};
     }},
    {"pre_tokenizer.add_prefix_space: true is not supported",
     [](auto& j) {
       j["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
     }},
    {"pre_tokenizer.pretokenizers.type: ByteLevel behind a ByteLevel is not supported",
     [](auto& j) {
       auto& list = j["pre_tokenizer"]["pretokenizers"];
       list.push_back(list.back());
     }},
    {"pre_tokenizer.pretokenizers.behavior: Removed is not supported, expected Isolated",
     [](auto& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; }},
    {"pre_tokenizer.pretokenizers.invert: true is not supported",
     [](auto& j) { j["pre_tokenizer"]["pretokenizers"][0]["invert"] = true; }},
    {"post_processor.type: TemplateProcessing is not supported, expected ByteLevel",
     [](auto& j) {
       j["post_processor"] = {{"type", "TemplateProcessing"}};
     }},
    {"decoder: is missing, expected ByteLevel", [](auto& j) { j.erase("decoder"); }},
};

TEST(TokenizerFile, RefusesWhatItDoesNotMean) {
  for (const Hostile& h : hostile) {
    auto json = small_tokenizer_json();
    h.edit(json);
    EXPECT_NE(message_of([&] { read_tokenizer(json); }).find(h.message), std::string::npos)
        << message_of([&] { read_tokenizer(json); }) << "\nexpected: " << h.message;
  }
}

TEST(TokenizerFile, RefusesBytesThatAreNoJson) {
  const test::TemporaryFolder folder;
  const std::string path = folder / "tokenizer.json";
  for (const auto& [bytes, message] :
       {std::pair<std::string, std::string>("{\"version\": \"\xff\"}", "is not JSON"),
        {std::string(100000, '['), "nests deeper than 32 levels"},
        {"[]", "is a list, wanted is an object"},
        {"{\"model\": {}, \"model\": {}}", "\"model\" stands twice in one object"},
        {"", "is not JSON"}}) {
    test::write_bytes(path, bytes);
    EXPECT_NE(message_of([&] { Tokenizer::read(path); }).find(message), std::string::npos) << bytes;
  }
  EXPECT_NE(message_of([&] { Tokenizer::read(folder / "none"); }).find("cannot be read"),
            std::string::npos);
}

// Every prefix of a file, and the file with every single byte changed, is refused or read.
TEST(TokenizerFile, DamageIsRefusedOrHarmless) {
  const test::TemporaryFolder folder;
  const std::string path = folder / "tokenizer.json";
  const std::string good = small_tokenizer_json().dump();
  int refused = 0;
  const auto read = [&](const std::string& bytes) {
    test::write_bytes(path, bytes);
    if (message_of([&] { Tokenizer::read(path).encode("the thing\n\n"); }) != "no error") {
      ++refused;
    }
  };
  for (std::size_t i = 0; i < good.size(); i += 7) {
    read(good.substr(0, i));
  }
  EXPECT_EQ(refused, static_cast<int>((good.size() + 6) / 7));
  for (std::size_t i = 0; i < good.size(); i += 3) {
    std::string bytes = good;
    bytes[i] = static_cast<char>(bytes[i] ^ (1 << (i % 8)));
    read(bytes);
  }
}

}  // namespace
}  // namespace qnext
