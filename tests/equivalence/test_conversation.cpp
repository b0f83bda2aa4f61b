// SPDX-License-Identifier: Apache-2.0
#include "app/conversation.hpp"
#include "app/trained_model.hpp"
#include "tests/model_support.hpp"
#include "tests/tokenizer_case.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace qnext {
namespace {

std::vector<int> tokens_of(int count, int seed) {
  std::vector<int> tokens(count);
  const std::uint64_t key = random_key(seed, "tokens");
  for (int i = 0; i < count; ++i) {
    tokens[i] = static_cast<int>(random_bits(key, i) % 37);
  }
  return tokens;
}

std::vector<int> operator+(std::vector<int> front, const std::vector<int>& back) {
  front.insert(front.end(), back.begin(), back.end());
  return front;
}

// Prompts one after the other, each behind what the document before it has seen or behind its mark,
// and what is written when they are read from their begin. In double, where no rounding comes near
// the distance of two logits.
struct GoingOn : testing::TestWithParam<int> {
  ProcessGrid grid;
  TrainedModel<double> trained;
  std::unique_ptr<TokenText> text = bytes_as_tokens();
  Generation<double> generation;

  static ModelConfig config() {
    ModelConfig config = test::small_model_config();
    config.mixers = {Mixer::delta_net, Mixer::attention, Mixer::delta_net, Mixer::attention};
    config.mlps = {Mlp::experts, Mlp::dense, Mlp::experts, Mlp::experts};
    config.balance = {};
    return config;
  }

  // Weights far from those of the start, so that what is written depends on what was read.
  GoingOn()
      : trained(config(), false),
        generation(trained.model, grid, {1, 120, 16, GetParam(), true}, *text) {
    initialise(trained.table, 3);
  }

  // Greedy; a mark 3 tokens before the end of the prompt.
  GenerationRequest request(const std::vector<int>& prompt) const {
    return {prompt, {.temperature = 0.0}, 7, {}, {}, static_cast<int>(prompt.size()) - 3};
  }

  // Writes, and returns how many tokens were read for it.
  std::int64_t read_for(const std::vector<int>& prompt, std::vector<int>& written) {
    const auto before = generation.pace().read;
    written = generation.write({request(prompt)}).front().tokens;
    Generation<double> fresh(trained.model, grid, {1, 120, 16, 0}, *text);
    GenerationRequest whole = request(prompt);
    whole.mark = 0;
    EXPECT_EQ(written, fresh.write({whole}).front().tokens);
    return generation.pace().read - before;
  }
};

TEST_P(GoingOn, WritesWhatAWholePromptDoes) {
  const int drafts = GetParam();
  std::vector<int> first, second, third, last;
  const auto prompt = tokens_of(25, 1), more = tokens_of(19, 2), other = tokens_of(30, 3);
  EXPECT_EQ(read_for(prompt, first), 25);
  // Behind all of the first text, whose last token was drawn and not yet read. Drafts may have read
  // further, up to the end.
  const auto behind = prompt + first + more;
  const auto read = read_for(behind, second);
  EXPECT_LE(read, 19 + 1);
  EXPECT_GE(read, drafts == 0 ? 19 + 1 : 19);
  // Behind the mark, 3 tokens before the end, as if nothing had been written there.
  const std::vector<int> marked(behind.begin(), behind.end() - 3);
  EXPECT_EQ(read_for(marked + other, third), 30);
  EXPECT_LE(read_for(marked + other + third + more, last), 19 + 1);
  EXPECT_EQ(read_for(other, last), 30);
}

TEST(Decoder, MarksWhereItHasRoomFor) {
  const TrainedModel<double> trained(GoingOn::config(), false);
  const ProcessGrid grid;
  Decoder<double> decoder(trained.model, grid, {1, 8, 8});
  decoder.begin(0);
  try {
    decoder.mark(0);
    FAIL() << "accepted";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("this decoder does not mark documents"),
              std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(Drafts, GoingOn, testing::Values(0, 1, 3));

struct Chat : testing::Test {
  test::TemporaryFolder folder;
  std::unique_ptr<TokenText> text;
  GenerationRequest request;

  Chat() {
    test::write_bytes(folder / "tokenizer.json", test::small_tokenizer_json().dump());
    text = tokens_of(Tokenizer::read(folder.path()));
  }

  std::string shown() const {
    std::string all;
    for (const int token : request.prompt) {
      all += text->text_of(token);
    }
    return all;
  }
  std::string behind_mark() const {
    std::string all;
    for (std::size_t i = request.mark; i < request.prompt.size(); ++i) {
      all += text->text_of(request.prompt[i]);
    }
    return all;
  }
};

TEST_F(Chat, KeepsTheTokensOfAnAnswer) {
  Conversation chat(*text, ChatStyle::instruct, "Be brief.");
  chat.ask("a?", request);
  EXPECT_EQ(shown(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na?<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(behind_mark(), "<|im_start|>assistant\n");
  const auto asked = request.prompt;
  // "the" byte by byte, which is one token when it is read.
  const std::vector<int> answer{'t', 'h', 'e'};
  ASSERT_NE(text->tokens_of("the"), answer);
  chat.answer({answer + std::vector<int>{chat.end_token()}, "the", Ending::stop_token});
  chat.ask("b?", request);
  EXPECT_EQ(request.prompt, asked + answer + std::vector<int>{chat.end_token()} +
                                text->tokens_of("\n<|im_start|>user\nb?<|im_end|>\n"
                                                "<|im_start|>assistant\n"));
  // An answer that was too long is closed.
  chat.answer({answer, "the", Ending::length});
  chat.ask("c?", request);
  EXPECT_NE(shown().find("the<|im_end|>\n<|im_start|>user\nc?"), std::string::npos);
}

TEST_F(Chat, LeavesThoughtsOut) {
  Conversation chat(*text, ChatStyle::thinking, "");
  chat.ask("a?", request);
  EXPECT_EQ(behind_mark(), "<|im_start|>assistant\n<think>\n");
  chat.answer({{1}, "hm\n</think>\n\nyes", Ending::stop_token});
  chat.ask("b?", request);
  EXPECT_EQ(shown(),
            "<|im_start|>user\na?<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
            "<|im_start|>user\nb?<|im_end|>\n<|im_start|>assistant\n<think>\n");
  // An answer that ended while the model thought has no words.
  chat.answer({{1}, "hm", Ending::length});
  chat.ask("c?", request);
  EXPECT_NE(shown().find("assistant\n<|im_end|>\n<|im_start|>user\nc?"), std::string::npos);
}

TEST_F(Chat, WantsTheTokensOfChats) {
  try {
    Conversation(*bytes_as_tokens(), ChatStyle::instruct, "");
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()),
              "--chat: the tokenizer has no token <|im_end|>, which chats need");
  }
}

}  // namespace
}  // namespace qnext
