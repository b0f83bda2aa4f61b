// SPDX-License-Identifier: Apache-2.0
#include "app/choices.hpp"
#include "app/evaluate.hpp"
#include "io/hdf5_file.hpp"
#include "io/text/csv.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/token_files.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

namespace qnext {
namespace {

using test::message_of;
using test::TemporaryFolder;
using test::write_bytes;

// The next token is the one after it in the alphabet, with a certainty that grows with the number
// of tokens seen: its logit is that number, all others are 0.
class Alphabet : public LanguageModel {
 public:
  Alphabet(int vocabulary, int most) : vocabulary_(vocabulary), most_(most) {}

  int vocabulary() const override { return vocabulary_; }
  int most_tokens() const override { return most_; }

  static double log_probability(int seen, bool next, int vocabulary) {
    return (next ? seen : 0.0) - std::log(std::exp(seen) + vocabulary - 1.0);
  }

  std::vector<ScoresOfTokens> score(const std::vector<ScoredTokens>& documents) override {
    std::vector<ScoresOfTokens> scores;
    for (const auto& [tokens, next] : documents) {
      ++passes;
      scores.emplace_back();
      const auto add = [&, &all = tokens](std::size_t t, int token, auto& list) {
        const bool follows = token == all[t - 1] + 1;
        const double score = log_probability(static_cast<int>(t), follows, vocabulary_);
        list.push_back({token == broken ? std::nan("") : score, follows});
      };
      for (std::size_t t = 1; t < tokens.size(); ++t) {
        add(t, tokens[t], scores.back().tokens);
      }
      for (const int token : next) {
        add(tokens.size(), token, scores.back().next);
      }
    }
    return scores;
  }

  int passes = 0;
  int broken = -1;  // a token of which the model says no number

  std::vector<std::vector<double>> logits(const std::vector<std::vector<int>>& documents) override {
    asked.push_back(static_cast<int>(documents.size()));
    std::vector<std::vector<double>> all;
    for (const std::vector<int>& document : documents) {
      auto& rows = all.emplace_back(document.size() * vocabulary_, 0.0);
      for (std::size_t t = 0; t < document.size(); ++t) {
        rows[t * vocabulary_ + (document[t] + 1) % vocabulary_] = static_cast<double>(t + 1);
      }
    }
    return all;
  }

  int at_once = 1;
  std::vector<int> asked;  // documents of each call for logits
  int passes_at_once() const override { return at_once; }

 private:
  int vocabulary_, most_;
};

double number(const EvaluationReport& report, const std::string& name) {
  for (const auto& [key, value] : report.numbers) {
    if (key == name) {
      return value.real(name);
    }
  }
  ADD_FAILURE() << "no " << name;
  return std::nan("");
}

EvaluationReport run(EvaluationReport (*what)(const EvaluationInputs&), EvaluateOptions options,
                     int vocabulary = 256, int broken = -1) {
  Alphabet model(vocabulary, options.window);
  model.broken = broken;
  TextTokens text(std::nullopt);
  return what({options, model, text});
}

// Every token but the first of a document is scored once, behind what its window still holds.
double expected_loss(int length, int window, int stride) {
  double loss = 0.0;
  for (int t = 1; t < length; ++t) {
    int begin = 0;
    while (begin + window <= t) {
      begin += stride;
    }
    loss -= Alphabet::log_probability(t - begin, true, 256);
  }
  return loss;
}

TEST(Perplexity, ScoresEachTokenOnceInItsWindow) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.txt";
  std::string text;
  for (int i = 0; i < 100; ++i) {
    text += static_cast<char>(20 + i);  // each the next one
  }
  write_bytes(path, text);
  for (const auto& [window, stride] :
       {std::pair(2, 1), {10, 9}, {10, 3}, {10, 0}, {99, 98}, {100, 50}, {200, 0}}) {
    const auto report = run(evaluate_perplexity,
                            {.data = path, .separator = "--", .window = window, .stride = stride});
    const double loss = expected_loss(100, window, stride > 0 ? stride : window - 1);
    EXPECT_EQ(number(report, "tokens"), 99);
    // A hundred terms of at most 6 nats, each rounded to 1e-16 of itself.
    EXPECT_NEAR(number(report, "loss"), loss / 99, 1e-13);
    EXPECT_NEAR(number(report, "perplexity"), std::exp(loss / 99), 1e-10);
    EXPECT_NEAR(number(report, "bits_per_byte"), loss / std::log(2.0) / 100, 1e-13);
  }
}

TEST(Perplexity, DocumentsBeginAnew) {
  const TemporaryFolder folder;
  write_bytes(folder / "b.txt", "abcd\n--\nefg\n--\nx");
  write_bytes(folder / "c.jsonl", R"({"text": "abc"})"
                                  "\n"
                                  R"({"text": "defg"})"
                                  "\n");
  const auto three =
      run(evaluate_perplexity, {.data = folder / "b.txt", .separator = "--", .window = 50});
  EXPECT_EQ(number(three, "documents"), 3);
  EXPECT_EQ(number(three, "tokens"), 4 + 3 + 0);  // with their line breaks
  const auto two = run(evaluate_perplexity, {.data = folder / "c.jsonl", .window = 50});
  EXPECT_EQ(number(two, "tokens"), 2 + 3);
  EXPECT_NEAR(number(two, "loss"), (expected_loss(3, 50, 49) + expected_loss(4, 50, 49)) / 5,
              1e-14);
  const auto one = run(evaluate_perplexity, {.data = folder / "c.jsonl", .window = 50, .limit = 1});
  EXPECT_EQ(number(one, "tokens"), 2);
  // The same documents as token files.
  test::write_indexed<std::uint16_t>(folder, "d", 8, {{'a', 'b', 'c'}, {'d', 'e', 'f', 'g'}});
  EXPECT_EQ(number(run(evaluate_perplexity, {.data = folder / "d", .window = 50}), "loss"),
            number(two, "loss"));
}

TEST(Perplexity, RefusesWhatCannotBeScored) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.txt", "a");
  write_bytes(folder / "b.jsonl", "{}");
  EXPECT_EQ(message_of([&] { run(evaluate_perplexity, {.data = folder / "a.txt"}); }),
            folder / "a.txt" + ": holds no token to score: a document needs two");
  EXPECT_EQ(message_of([&] { run(evaluate_perplexity, {.data = folder / "b.jsonl"}); }),
            folder / "b.jsonl" + ":1: has no text");
  EXPECT_EQ(message_of([&] {
              run(evaluate_perplexity, {.data = folder / "a.txt", .window = 8, .stride = 8});
            }),
            "--stride 8: must be less than --window, 8");
}

TEST(Loglikelihood, SumsTheContinuationAlone) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.jsonl";
  write_bytes(path, R"({"context": "ab", "continuation": "cd"})"
                    "\n"
                    R"({"context": "ab", "continuation": "xy"})"
                    "\n"
                    R"({"context": "ab ", "continuation": "c"})"
                    "\n");
  const auto report = run(evaluate_loglikelihood, {.data = path, .window = 50});
  const auto p = [](int seen, bool next) { return Alphabet::log_probability(seen, next, 256); };
  EXPECT_EQ(number(report, "tokens"), 2 + 2 + 2);  // the blank belongs to the continuation
  EXPECT_NEAR(number(report, "sum"),
              p(2, true) + p(3, true) + p(2, false) + p(3, true) + p(2, false) + p(3, false),
              1e-13);
  EXPECT_EQ(number(report, "greedy"), 1.0 / 3.0);
  EXPECT_EQ(number(report, "cut"), 0);
  const auto cut = run(evaluate_loglikelihood, {.data = path, .window = 3});
  EXPECT_EQ(number(cut, "cut"), 3);
  EXPECT_EQ(number(cut, "tokens"), 6);
}

TEST(Choice, TakesTheMostProbable) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.jsonl";
  write_bytes(path, R"({"context": "ab", "choices": ["xx", "cd", "cx"], "answer": 1})"
                    "\n"
                    R"({"context": "ab", "choices": ["cd", "cx"], "answer": 1})"
                    "\n"
                    // Shorter and so more probable, but not for each byte.
                    R"({"context": "ab", "choices": ["x", "xyzabcdefghi"], "answer": 1})"
                    "\n");
  const auto report = run(evaluate_choice, {.data = path, .window = 50});
  EXPECT_EQ(number(report, "items"), 3);
  EXPECT_NEAR(number(report, "accuracy"), 1.0 / 3.0, 1e-15);
  EXPECT_NEAR(number(report, "accuracy_per_byte"), 2.0 / 3.0, 1e-15);
}

// Texts that differ in their last token alone go through the model once.
TEST(ScoreTexts, AsksForWhatIsCommonOnce) {
  Alphabet model(256, 50);
  TextTokens text(std::nullopt);
  const EvaluateOptions options{};
  const auto scores =
      score_texts({options, model, text}, {{"ab", "c"}, {"ab", "d"}, {"ab", "cd"}, {"x", "y"}});
  EXPECT_EQ(model.passes, 3);
  const auto p = [](int seen, bool next) { return Alphabet::log_probability(seen, next, 256); };
  EXPECT_EQ(scores[0].sum, p(2, true));
  EXPECT_EQ(scores[1].sum, p(2, false));
  EXPECT_EQ(scores[2].sum, p(2, true) + p(3, true));
  EXPECT_EQ(scores[3].sum, p(1, true));
  EXPECT_EQ(scores[2].tokens, 2);
  EXPECT_FALSE(scores[1].greedy);
  EXPECT_TRUE(scores[3].greedy);
}

TEST(Choice, NamesTheLineThatItRefuses) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.jsonl";
  for (const auto& [line, message] :
       {std::pair<std::string, std::string>("{}", ":1: has no context"),
        {R"({"context": "a"})", ":1: has no choices or no answer"},
        {R"({"context": "a", "choices": ["b"], "answer": 1})", ":1: answer is 1, expected 0 to 0"},
        {R"({"context": "", "choices": ["b"], "answer": 0})",
         "a context is empty, and bytes has no <|endoftext|> to begin with"},
        {R"({"context": "a", "choices": [""], "answer": 0})",
         "the continuation \"\" has 0 tokens, expected 1 to 49"},
        {"", ": holds no line"}}) {
    write_bytes(path, line);
    const std::string found =
        message_of([&] { run(evaluate_choice, {.data = path, .window = 50}); });
    EXPECT_NE(found.find(message), std::string::npos) << found;
  }
}

std::string question(const std::string& text, char answer) {
  return "\"" + text + "\",one,\"t,w\"\"o\",three,four," + answer + "\r\n";
}

TEST(Mmlu, CountsBySubjectAndInAll) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "dev");
  std::filesystem::create_directories(folder / "test");
  for (const char* const subject : {"odd_things", "zoology"}) {
    write_bytes(folder / ("dev/" + std::string(subject) + "_dev.csv"),
                question("one\nline", 'A') + question("two", 'B'));
  }
  // " A" to " D" are all equally improbable behind ":", so the first is chosen.
  write_bytes(folder / "test/odd_things_test.csv", question("x", 'A') + question("y", 'B'));
  write_bytes(folder / "test/zoology_test.csv", question("z", 'A'));
  const EvaluateOptions options{.data = folder.path(), .window = 500, .shots = 2};
  const auto report = run(evaluate_mmlu, options);
  EXPECT_EQ(number(report, "subjects"), 2);
  EXPECT_EQ(number(report, "questions"), 3);
  EXPECT_NEAR(number(report, "micro_accuracy"), 2.0 / 3.0, 1e-15);
  EXPECT_NEAR(number(report, "macro_accuracy"), 0.75, 1e-15);
  EXPECT_EQ(number(report, "cut"), 0);

  auto more = options;
  more.shots = 3;
  EXPECT_EQ(message_of([&] { run(evaluate_mmlu, more); }), "odd_things: 2 examples, --shots is 3");
  write_bytes(folder / "test/odd_things_test.csv", "");
  EXPECT_EQ(message_of([&] { run(evaluate_mmlu, options); }), "odd_things: holds no question");
  write_bytes(folder / "test/odd_things_test.csv", "a,b,c\n");
  EXPECT_NE(message_of([&] {
              run(evaluate_mmlu, options);
            }).find("row 1 has 3 fields, expected a question, four answers and A, B, C or D"),
            std::string::npos);
  EXPECT_EQ(message_of([&] { run(evaluate_mmlu, {.data = folder / "dev"}); }),
            folder / "dev" + ": holds no test/SUBJECT_test.csv, as the folder of MMLU does");
}

// Where a log-probability is NaN, the status is 4 and the file says where.
TEST(Evaluation, SaysWhereNumbersAreNotFinite) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.txt", "abc\n--\nabzd\n");
  write_bytes(folder / "b.jsonl", R"({"context": "ab", "continuation": "cd"})"
                                  "\n"
                                  R"({"context": "ab", "continuation": "cz"})"
                                  "\n");
  write_bytes(folder / "c.jsonl", R"({"context": "ab", "choices": ["c", "z"], "answer": 0})");
  std::filesystem::create_directories(folder / "mmlu/dev");
  std::filesystem::create_directories(folder / "mmlu/test");
  write_bytes(folder / "mmlu/dev/zoo_dev.csv", "");
  write_bytes(folder / "mmlu/test/zoo_test.csv", question("x", 'A'));
  struct Case {
    EvaluationReport (*what)(const EvaluationInputs&);
    std::string data;
    int broken;
    std::string place;
  };
  for (const auto& [what, data, broken, place] :
       {Case{evaluate_perplexity, "a.txt", 'z', "token 3 of document 2"},
        {evaluate_loglikelihood, "b.jsonl", 'z', "item 2"},
        {evaluate_choice, "c.jsonl", 'z', "choice 1 of item 1"},
        {evaluate_mmlu, "mmlu", 'C', "choice 2 of question 1 of zoo"}}) {
    const EvaluateOptions options{
        .data = folder / data, .separator = "--", .window = 500, .shots = 0};
    EXPECT_TRUE(run(what, options).passed()) << data;
    const EvaluationReport report = run(what, options, 256, broken);
    EXPECT_EQ(report.failure, "1 log-probabilities are not finite, the first of " + place);
    EXPECT_EQ(number(report, "not_finite"), 1);
    ASSERT_FALSE(report.details.empty()) << data;
    EXPECT_EQ(report.details.back().first, "not_finite_at");
    EXPECT_EQ(report.details.back().second.to_string(), "[\"" + place + "\"]");
  }
}

TEST(Csv, ReadsQuotes) {
  using Rows = std::vector<std::vector<std::string>>;
  EXPECT_EQ(parse_csv("a,\"b,\"\"c\"\"\n\",\r\n\n,x", "f"),
            (Rows{{"a", "b,\"c\"\n", ""}, {"", "x"}}));
  EXPECT_EQ(parse_csv("", "f"), Rows{});
  EXPECT_EQ(parse_csv("\"\"\n", "f"), (Rows{{""}}));
  EXPECT_EQ(message_of([] { parse_csv("a,\"b", "f"); }), "f: the quote at byte 2 is never closed");
}

// Logits of the alphabet model for the tokens 1, 5, with the largest one of row 1 moved by `error`.
std::string golden_line(double error, int vocabulary) {
  std::string rows;
  for (int t = 0; t < 2; ++t) {
    rows += t == 0 ? "[" : ", [";
    for (int v = 0; v < vocabulary; ++v) {
      const bool next = v == (t == 0 ? 2 : 6);
      rows += fmt::format("{}{}", v == 0 ? "" : ", ", next ? t + 1 + t * error : 0.0);
    }
    rows += "]";
  }
  return R"({"prompt": "p", "tokens": [1, 5], "logits": [)" + rows + "]}\n";
}

TEST(Logits, DivergenceIsThatOfTheDefinition) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.jsonl";
  write_bytes(path, golden_line(0.5, 10));
  const auto report = run(evaluate_logits, {.data = path, .max_kl = 0.1}, 12);
  // Of the first ten tokens: golden logit 2.5, model's 2, nine zeros.
  const double p = std::exp(2.5) / (std::exp(2.5) + 9), q = std::exp(2) / (std::exp(2) + 9);
  const double kl = p * std::log(p / q) + (1 - p) * std::log((1 - p) / (1 - q));
  EXPECT_NEAR(number(report, "max_kl"), kl, 1e-14);
  EXPECT_NEAR(number(report, "mean_kl"), kl / 2, 1e-14);
  EXPECT_EQ(number(report, "max_difference"), 0.5);
  EXPECT_EQ(number(report, "top1_agreement"), 1.0);
  EXPECT_EQ(number(report, "positions"), 2);
  EXPECT_TRUE(report.passed());
  EXPECT_FALSE(run(evaluate_logits, {.data = path, .max_kl = kl / 1.01}, 12).passed());
  // One that is below the others.
  write_bytes(path, golden_line(-3.0, 10));
  EXPECT_EQ(number(run(evaluate_logits, {.data = path}, 12), "top1_agreement"), 0.5);
}

TEST(Logits, WhatIsWrittenIsRead) {
  const TemporaryFolder folder;
  write_bytes(folder / "prompts.jsonl", R"({"prompt": "abc"})"
                                        "\n"
                                        R"({"prompt": "\"é\n"})"
                                        "\n");
  for (const char* const name : {"a.jsonl", "a.h5"}) {
    const std::string path = folder / name;
    const auto written = run(evaluate_logits, {.data = folder / "prompts.jsonl", .write = path});
    EXPECT_EQ(number(written, "positions"), 0);
    EXPECT_TRUE(written.passed());
    const auto read = run(evaluate_logits, {.data = path, .max_kl = 0.0});
    EXPECT_EQ(number(read, "prompts"), 2);
    EXPECT_EQ(number(read, "positions"), 3 + 4);
    EXPECT_EQ(number(read, "max_difference"), 0.0);
    EXPECT_TRUE(read.passed());
  }
}

// What ranks compute at a time is asked for at a time, and nothing else: logits are large.
TEST(Logits, AreAskedForInPassesThatGoOnAtOnce) {
  const TemporaryFolder folder;
  write_bytes(folder / "prompts.jsonl",
              "{\"prompt\": \"abc\"}\n{\"prompt\": \"d\"}\n{\"prompt\": \"ef\"}\n");
  EvaluateOptions options{.data = folder / "prompts.jsonl", .write = folder / "one.jsonl"};
  run(evaluate_logits, options);
  options.write = folder / "two.jsonl";
  Alphabet model(256, options.window);
  model.at_once = 2;
  TextTokens text(std::nullopt);
  evaluate_logits({options, model, text});
  EXPECT_EQ(model.asked, (std::vector<int>{2, 1}));
  EXPECT_EQ(test::bytes_of(folder / "one.jsonl"), test::bytes_of(folder / "two.jsonl"));
}

TEST(Logits, RefusesWhatIsNoLogits) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.jsonl";
  for (const auto& [line, message] :
       {std::pair<std::string, std::string>("{}", ":1: has neither tokens nor a prompt"),
        {R"({"tokens": [1, 2], "logits": [[1]]})", ":1: logits: 1 rows for 2 tokens"},
        {R"({"tokens": [1, 2], "logits": [[1, 2], [1]]})",
         ":1: logits: a row has 1 numbers, the first one 2"},
        {R"({"tokens": [1]})", ": holds no logits to compare with, and --write asks for none"}}) {
    write_bytes(path, line);
    const std::string found = message_of([&] { run(evaluate_logits, {.data = path}); });
    EXPECT_NE(found.find(message), std::string::npos) << found;
  }
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.write_dataset<int>("/prompts/0/tokens", {1, 2}, {2});
  file.write_dataset<float>("/prompts/0/logits", {1.0f}, {1, 1});
  file.close();
  EXPECT_NE(message_of([&] {
              run(evaluate_logits, {.data = folder / "a.h5"});
            }).find("/prompts/0/logits has the extents (1, 1) for 2 tokens"),
            std::string::npos);
  EXPECT_EQ(message_of([&] { run(evaluate_logits, {.data = path, .write = "/dev/full"}); }),
            "/dev/full: the disk does not take it");
  EXPECT_EQ(message_of([&] { run(evaluate_logits, {.data = path, .write = folder / "none/a"}); }),
            folder / "none/a" + ": cannot be written");
}

}  // namespace
}  // namespace qnext
