// SPDX-License-Identifier: Apache-2.0
#include "app/generation_requests.hpp"
#include "core/require.hpp"
#include "tests/support.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/tokenizer_case.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace qnext {
namespace {

constexpr int vocabulary = 300;

class GenerationRequests : public testing::Test {
 protected:
  std::vector<GenerationRequest> read(const std::string& lines) {
    std::ofstream(path) << lines;
    return read_requests(path, usual, *text, vocabulary);
  }
  void expect_refused(const std::string& lines, const std::string& words) {
    try {
      read(lines);
      FAIL() << lines << " is accepted, wanted: " << words;
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  }

  test::TemporaryFolder folder;
  std::string path = folder.path() + "/lines.jsonl";
  std::unique_ptr<TokenText> text = bytes_as_tokens();
  GenerationRequest usual{{1}, {.temperature = 0.5, .seed = 3}, 7, {9}, {"end"}, 0, {11}};
};

TEST_F(GenerationRequests, TakeWhatALineLeavesOutFromTheCommandLine) {
  const auto requests = read(
      "{\"prompt\": \"ab\"}\n"
      "{\"tokens\": [3, 4, 5], \"length\": 2, \"temperature\": 1, \"top_k\": 4, \"top_p\": 0.5, "
      "\"min_p\": 0.1, \"repetition_penalty\": 1.5, \"presence_penalty\": 0.25, \"seed\": 8, "
      "\"stop\": [\"x\", \"y\"], \"stop_tokens\": [7]}\n"
      "{\"stop\": \"z\", \"prompt\": \"c\"}\n");
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].prompt, (std::vector<int>{'a', 'b'}));
  EXPECT_EQ(requests[0].length, 7);
  EXPECT_EQ(requests[0].sampling.temperature, 0.5);
  EXPECT_EQ(requests[0].sampling.seed, 3u);
  EXPECT_EQ(requests[0].stop_texts, std::vector<std::string>{"end"});
  EXPECT_EQ(requests[0].stop_tokens, std::vector<int>{9});
  const auto& [prompt, sampling, length, stop_tokens, stop_texts, mark, end_tokens] = requests[1];
  EXPECT_EQ(mark, 0);
  EXPECT_EQ(prompt, (std::vector<int>{3, 4, 5}));
  EXPECT_EQ(length, 2);
  EXPECT_EQ(sampling.temperature, 1.0);
  EXPECT_EQ(sampling.top_k, 4);
  EXPECT_EQ(sampling.top_p, 0.5);
  EXPECT_EQ(sampling.min_p, 0.1);
  EXPECT_EQ(sampling.repetition_penalty, 1.5);
  EXPECT_EQ(sampling.presence_penalty, 0.25);
  EXPECT_EQ(sampling.seed, 8u);
  EXPECT_EQ(stop_texts, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(stop_tokens, std::vector<int>{7});
  EXPECT_EQ(end_tokens, std::vector<int>{11}) << "stay those of the model";
  EXPECT_TRUE(requests[1].ends_with(7) && requests[1].ends_with(11));
  EXPECT_FALSE(requests[1].ends_with(9));
  EXPECT_EQ(requests[2].stop_texts, std::vector<std::string>{"z"});
}

TEST_F(GenerationRequests, AreRefusedByFileAndLine) {
  const std::string begin = "{\"prompt\": \"a\"}\n{\"tokens\": [1], ";
  expect_refused(begin + "\"top_k\": -1}", "lines.jsonl:2: top_k -1: must not be negative");
  expect_refused(begin + "\"temperature\": -1}", "temperature -1: must not be negative");
  expect_refused(begin + "\"length\": -1}", "length -1: must not be negative");
  expect_refused(begin + "\"top_p\": 0}", "top_p 0: must be above 0 and at most 1");
  expect_refused(begin + "\"min_p\": 2}", "min_p 2: must be from 0 to 1");
  expect_refused(begin + "\"repetition_penalty\": 0}",
                 "repetition_penalty 0: must be positive; 1: none");
  expect_refused(begin + "\"stop\": \"\"}", "stop \"\": ends every text");
  expect_refused(begin + "\"width\": 3}", "lines.jsonl:2: width: is no setting of a prompt");
  expect_refused(begin + "\"prompt\": \"a\"}", "a line has either a prompt or tokens");
  expect_refused("{}", "lines.jsonl:1: a line has either a prompt or tokens");
  expect_refused("{\"tokens\": []}", "lines.jsonl:1: the prompt has no token");
  expect_refused("{\"tokens\": [300]}", "the prompt has the token 300; this model knows 0 to 299");
  expect_refused("{\"tokens\": [1], \"top_k\": 3000000000}", "is no number of 32 bits");
  expect_refused("{\"tokens\": [1}", "lines.jsonl:1");
  EXPECT_THROW(read_requests(folder.path() + "/none", usual, *text, vocabulary), InputError);
}

TEST_F(GenerationRequests, OfTheCommandLineAreRefusedByOption) {
  GenerateOptions options;
  options.model = path;
  std::ofstream(path) << "";
  ModelSource source;
  source.model.vocabulary = vocabulary;
  const auto message = [&](GenerateOptions o) -> std::string {
    try {
      request_of(o, *text, source);
    } catch (const InputError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message(options), "accepted");
  GenerateOptions wrong = options;
  wrong.batch = 65;
  EXPECT_EQ(message(wrong),
            "--batch 65: must be from 1 to 64, together with the drafts of each document");
  wrong.batch = 13;
  wrong.drafts = 4;
  EXPECT_EQ(message(wrong),
            "--batch 13: must be from 1 to 64, together with the drafts of each document");
  wrong.drafts = 5;
  EXPECT_EQ(message(wrong), "--drafts 5: must be from 0 to 4");
  wrong = options;
  wrong.prefill_chunk = 0;
  EXPECT_EQ(message(wrong), "--prefill-chunk 0: must be positive");
  wrong = options;
  wrong.min_p = -1;
  EXPECT_EQ(message(wrong), "--min-p -1: must be from 0 to 1");
  wrong = options;
  wrong.context = 0;
  EXPECT_EQ(message(wrong), "--context 0: must be from 1 to 2^30 tokens");
  wrong = options;
  wrong.length = (1 << 30) + 1;
  EXPECT_EQ(message(wrong), "--length 1073741825: must be at most 2^30 tokens");
}

TEST_F(GenerationRequests, EndTokensComeFromGenerationConfigFirst) {
  ModelSource source;
  source.weights = {InitSettings::Kind::hugging_face, folder.path()};
  const auto ends = [&](const std::string& config) {
    std::ofstream(folder.path() + "/generation_config.json") << config;
    return end_tokens(source);
  };
  EXPECT_EQ(ends("{\"eos_token_id\": [5, 3], \"top_k\": 20}"), (std::vector<int>{5, 3}));
  EXPECT_EQ(ends("{\"eos_token_id\": 4}"), std::vector<int>{4});
  // A checkpoint has them from the folder that it was converted from, if there was one.
  source.weights = {InitSettings::Kind::checkpoint, folder.path() + "/model.h5"};
  EXPECT_EQ(end_tokens(source), std::vector<int>{});
  source.files["generation_config.json"] = "{\"eos_token_id\": 7}";
  EXPECT_EQ(end_tokens(source), std::vector<int>{7});
}

TEST_F(GenerationRequests, SpeakTheTokensOfATokenizer) {
  test::write_bytes(folder / "tokenizer.json", test::small_tokenizer_json().dump());
  text = tokens_of(Tokenizer::read(folder.path()));
  const auto request = read("{\"prompt\": \"the the\"}").front();
  EXPECT_EQ(request.prompt, (std::vector<int>{257, 258}));
  EXPECT_EQ(text->text_of(257) + text->text_of(258) + text->text_of(0xc3), "the the\xc3");
  EXPECT_EQ(as_numbers(std::move(text))->text_of(258), "258 ");
}

TEST(GenerationLines, HoldTokensTextAndEnding) {
  EXPECT_EQ(line_of({{34, 200}, "\"\xc8", Ending::stop_text}),
            "{\"tokens\": [34, 200], \"text\": \"\\\"\xef\xbf\xbd\", \"ending\": \"stop_text\"}\n");
  EXPECT_EQ(line_of({{}, "", Ending::length}),
            "{\"tokens\": [], \"text\": \"\", \"ending\": \"length\"}\n");
  EXPECT_EQ(line_of({{7}, "", Ending::stop_token}),
            "{\"tokens\": [7], \"text\": \"\", \"ending\": \"stop_token\"}\n");
}

}  // namespace
}  // namespace qnext
