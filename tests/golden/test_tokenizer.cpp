// SPDX-License-Identifier: Apache-2.0
#include "io/json.hpp"
#include "io/text/chat.hpp"
#include "io/text/text_decoder.hpp"
#include "io/text/tokenizer.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace qnext {
namespace {

const std::string folder = std::string(std::getenv("QNEXT_SHARED")) + "/golden/tokenizer/";

std::vector<Json> lines(const std::string& name) {
  std::ifstream in(folder + name);
  std::vector<Json> cases;
  for (std::string line; std::getline(in, line);) {
    cases.push_back(Json::parse(line, name));
  }
  return cases;
}

std::vector<int> ids_of(const Json& json) {
  std::vector<int> ids;
  for (const Json& id : json.find("ids")->list("ids")) {
    ids.push_back(static_cast<int>(id.integer("id")));
  }
  return ids;
}

std::string text_of(const Json& json, const char* key) {
  return json.find(key)->text(key);
}

std::string streamed(const Tokenizer& tokenizer, const std::vector<int>& ids) {
  TextDecoder decoder(tokenizer);
  std::string text;
  for (const int id : ids) {
    text += decoder.add(id);
  }
  return text + decoder.finish();
}

TEST(GoldenTokenizer, EncodesAndDecodesAsTokenizersDoes) {
  const Tokenizer tokenizer = Tokenizer::read(folder);
  EXPECT_EQ(tokenizer.size(), 512);
  const std::vector<Json> cases = lines("tokenizer_cases.jsonl");
  ASSERT_EQ(cases.size(), 447u);
  Encoder encoder(tokenizer);
  for (const Json& c : cases) {
    const std::string text = text_of(c, "text");
    std::vector<int> ids;
    encoder.encode(text, ids);
    EXPECT_EQ(ids, ids_of(c)) << text;
    EXPECT_EQ(tokenizer.encode(text), ids) << text;
    EXPECT_EQ(tokenizer.decode(ids), text_of(c, "decoded"));
    EXPECT_EQ(streamed(tokenizer, ids), text_of(c, "decoded"));
  }
}

TEST(GoldenTokenizer, DecodesAnyIds) {
  const Tokenizer tokenizer = Tokenizer::read(folder);
  const std::vector<Json> cases = lines("decode_cases.jsonl");
  ASSERT_EQ(cases.size(), 60u);
  for (const Json& c : cases) {
    const std::vector<int> ids = ids_of(c);
    EXPECT_EQ(tokenizer.decode(ids), text_of(c, "decoded"));
    EXPECT_EQ(streamed(tokenizer, ids), text_of(c, "decoded"));
    EXPECT_EQ(tokenizer.decode(ids, Tokenizer::Special::leave_out),
              text_of(c, "decoded_without_special"));
  }
}

TEST(GoldenTokenizer, RendersChats) {
  const Tokenizer tokenizer = Tokenizer::read(folder);
  const ChatStyle style = chat_style_of(folder);
  EXPECT_EQ(style, ChatStyle::instruct);
  const std::vector<Json> cases = lines("chat_cases.jsonl");
  ASSERT_EQ(cases.size(), 20u);
  for (const Json& c : cases) {
    const auto messages = chat_messages(*c.find("messages"), "messages");
    const bool prompt = c.find("add_generation_prompt")->boolean("add_generation_prompt");
    const std::string text = render_chat(messages, style, prompt);
    EXPECT_EQ(text, text_of(c, "text"));
    EXPECT_EQ(tokenizer.encode(text), ids_of(c));
    if (!prompt) {
      Encoder encoder(tokenizer);
      std::vector<int> ids;
      std::vector<std::uint8_t> mask;
      encode_chat(chat_turns(messages, style), tokenizer, encoder, ids, mask);
      EXPECT_EQ(ids, ids_of(c));
    }
  }
}

}  // namespace
}  // namespace qnext
