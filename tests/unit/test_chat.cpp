// SPDX-License-Identifier: Apache-2.0
#include "io/text/chat.hpp"
#include "tests/tokenizer_case.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

using test::message_of;

std::string rendered(const std::string& messages, ChatStyle style, bool prompt = false) {
  return render_chat(chat_messages(Json::parse(messages, "x"), "messages"), style, prompt);
}

TEST(Chat, InstructRendersWhatIsThere) {
  const std::string messages =
      R"([{"role": "system", "content": "s"}, {"role": "user", "content": "a\n"},
          {"role": "assistant", "content": "<think>\nw\n</think>\n\nb", "reasoning_content": "r"}])";
  const std::string turns =
      "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na\n<|im_end|>\n"
      "<|im_start|>assistant\n<think>\nw\n</think>\n\nb<|im_end|>\n";
  EXPECT_EQ(rendered(messages, ChatStyle::instruct), turns);
  EXPECT_EQ(rendered(messages, ChatStyle::instruct, true), turns + "<|im_start|>assistant\n");
}

// What the template of the published thinking models gives, rendered by Jinja.
TEST(Chat, ThinkingKeepsTheThoughtsBehindTheLastQuestion) {
  const std::string a = R"({"role": "user", "content": "a"})", user = "<|im_start|>user\n",
                    assistant = "<|im_start|>assistant\n", end = "<|im_end|>\n";
  const auto says = [](const std::string& content) {
    return R"({"role": "assistant", "content": ")" + content + "\"}";
  };
  struct Case {
    std::string messages, text;
  };
  for (const Case& c :
       {Case{a, user + "a" + end},
        {a + "," + says("b"), user + "a" + end + assistant + "<think>\n\n</think>\n\nb" + end},
        {a + R"(,{"role": "assistant", "content": "b", "reasoning_content": "\n\nwhy\n"})",
         user + "a" + end + assistant + "<think>\nwhy\n</think>\n\nb" + end},
        {a + "," + says("<think>\\nwhy\\n</think>\\n\\nb") + "," + a + "," +
             says("<think>x</think>d"),
         user + "a" + end + assistant + "b" + end + user + "a" + end + assistant +
             "<think>\nx\n</think>\n\nd" + end},
        {a + "," + says("</think>b</think>\\n\\nc"),
         user + "a" + end + assistant + "<think>\n\n</think>\n\nc" + end},
        {a + R"(,{"role": "assistant", "content": "\n\nb", "reasoning_content": "r"},)" +
             says("c") + "," + says("d"),
         user + "a" + end + assistant + "<think>\nr\n</think>\n\nb" + end + assistant + "c" + end +
             assistant + "<think>\n\n</think>\n\nd" + end},
        {a + R"(,{"role": "user", "content": "<tool_response>x</tool_response>"},)" +
             R"({"role": "assistant", "content": "z", "reasoning_content": ""})",
         user + "a" + end + user + "<tool_response>x</tool_response>" + end + assistant +
             "<think>\n\n</think>\n\nz" + end},
        {says("only"), assistant + "only" + end},
        {a + "," + says("<think>p<think>\\nq</think>\\nr"),
         user + "a" + end + assistant + "<think>\nq\n</think>\n\nr" + end},
        {a + "," + says("x\\n") + "," + says("<think>k</think>"),
         user + "a" + end + assistant + "x\n" + end + assistant + "<think>\nk\n</think>\n\n" +
             end}}) {
    EXPECT_EQ(rendered("[" + c.messages + "]", ChatStyle::thinking), c.text) << c.messages;
    EXPECT_EQ(rendered("[" + c.messages + "]", ChatStyle::thinking, true),
              c.text + assistant + "<think>\n");
  }
}

// The words that the mask leaves to learn, as text.
std::string learnt(const std::string& messages, ChatStyle style) {
  const Tokenizer tokenizer = test::read_tokenizer(test::small_tokenizer_json());
  Encoder encoder(tokenizer);
  const auto parsed = chat_messages(Json::parse(messages, "x"), "messages");
  std::vector<int> ids;
  std::vector<std::uint8_t> mask;
  encode_chat(chat_turns(parsed, style), tokenizer, encoder, ids, mask);
  EXPECT_EQ(ids, tokenizer.encode(render_chat(parsed, style, false)));
  EXPECT_EQ(mask.size(), ids.size());
  std::vector<int> kept;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (mask[i] != 0) {
      kept.push_back(ids[i]);
    }
  }
  return tokenizer.decode(kept);
}

TEST(Chat, OnlyTheAssistantsWordsAreLearnt) {
  const std::string before = R"([{"role": "system", "content": "the"},
      {"role": "user", "content": "and"}, {"role": "assistant", "content": ")";
  EXPECT_EQ(learnt(before + "thing\"}]", ChatStyle::instruct), "thing<|im_end|>");
  EXPECT_EQ(learnt(before + "a<|im_end|>b\"}]", ChatStyle::instruct), "a<|im_end|>b<|im_end|>");
  EXPECT_EQ(learnt(before + "e\u0301\"}]", ChatStyle::instruct), "\u00e9<|im_end|>");
  // The line break of the header and the first of the answer are one token, which is given.
  EXPECT_EQ(learnt(before + "\\n\\nthe\"}]", ChatStyle::instruct), "\nthe<|im_end|>");
  // <think> is given, what comes behind it is not.
  EXPECT_EQ(learnt(before + "b\", \"reasoning_content\": \"why\"}]", ChatStyle::thinking),
            "why\n</think>\n\nb<|im_end|>");
  EXPECT_EQ(learnt(R"([{"role": "user", "content": "and"}])", ChatStyle::instruct), "");
}

TEST(Chat, RefusesWhatTheTemplatesSayOtherwise) {
  for (
      const auto& [messages, message] :
      {std::pair<std::string, std::string>(
           R"([{"role": "tool", "content": "a"}])",
           "messages[0].role: \"tool\" is not supported, expected system, user or assistant"),
       {R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [1]}])",
        "messages[1].tool_calls: is not supported, expected role, content and reasoning_content"},
       {R"([{"role": "user", "content": [{"type": "text"}]}])", "messages[0].content = "},
       {"[]", "messages: is empty, expected at least one message"},
       {"{}", "messages = {}: is an object, wanted is a list"}}) {
    EXPECT_EQ(message_of([&] { rendered(messages, ChatStyle::instruct); }).find(message), 0u)
        << message_of([&] { rendered(messages, ChatStyle::instruct); });
  }
  auto json = test::small_tokenizer_json();
  json["added_tokens"].erase(2);
  const Tokenizer tokenizer = test::read_tokenizer(json);
  Encoder encoder(tokenizer);
  std::vector<int> ids;
  std::vector<std::uint8_t> mask;
  EXPECT_NE(message_of([&] {
              encode_chat({}, tokenizer, encoder, ids, mask);
            }).find("has no token <|im_end|>, which chats need"),
            std::string::npos);
}

TEST(Chat, TheTemplateTellsTheStyle) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(chat_style_of(folder.path()), ChatStyle::instruct);
  test::write_bytes(folder / "tokenizer_config.json", R"({"chat_template": "'<think>\n'"})");
  EXPECT_EQ(chat_style_of(folder.path()), ChatStyle::thinking);
  test::write_bytes(folder / "chat_template.jinja", "{{ message.content }}");
  EXPECT_EQ(chat_style_of(folder.path()), ChatStyle::instruct);
  EXPECT_EQ(chat_style_named("thinking"), ChatStyle::thinking);
  EXPECT_EQ(name_of(chat_style_named("instruct")), "instruct");
  EXPECT_EQ(message_of([] { chat_style_named("loud"); }),
            "--chat loud: wanted is instruct or thinking");
}

}  // namespace
}  // namespace qnext
