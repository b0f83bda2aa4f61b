// SPDX-License-Identifier: Apache-2.0
#include "app/choices.hpp"
#include "app/evaluate.hpp"
#include "core/require.hpp"
#include "io/mapped_file.hpp"
#include "io/text/csv.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

namespace qnext {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view letters = "ABCD";
constexpr std::string_view test_ending = "_test.csv";

// question, four answers, the letter of the right one
using Question = std::vector<std::string>;

std::vector<Question> read_questions(const fs::path& path) {
  const MappedFile file(path.string());
  const std::string_view text(file.data(), static_cast<std::size_t>(file.size()));
  std::vector<Question> questions = parse_csv(text, path.string());
  for (std::size_t i = 0; i < questions.size(); ++i) {
    const Question& q = questions[i];
    if (q.size() != 6 || q[5].size() != 1 || letters.find(q[5]) == letters.npos) {
      throw InputError(fmt::format(
          "{}: row {} has {} fields, expected a question, four answers and A, B, C or D",
          path.string(), i + 1, q.size()));
    }
  }
  return questions;
}

std::vector<std::string> subjects_of(const std::string& folder) {
  std::vector<std::string> subjects;
  const fs::path test = fs::path(folder) / "test";
  if (fs::is_directory(test)) {
    for (const auto& entry : fs::directory_iterator(test)) {
      const std::string name = entry.path().filename();
      if (name.ends_with(test_ending)) {
        subjects.push_back(name.substr(0, name.size() - test_ending.size()));
      }
    }
  }
  if (subjects.empty()) {
    throw InputError(folder + ": holds no test/SUBJECT_test.csv, as the folder of MMLU does");
  }
  std::sort(subjects.begin(), subjects.end());
  return subjects;
}

std::string asked(const Question& question) {
  std::string text = question[0];
  for (std::size_t i = 0; i < letters.size(); ++i) {
    text += fmt::format("\n{}. {}", letters[i], question[i + 1]);
  }
  return text + "\nAnswer:";
}

// The prompt of the authors: a line on the subject, examples with their answers, the question.
std::string prompt(const std::string& subject, const std::vector<Question>& examples, int shots) {
  std::string name = subject;
  std::replace(name.begin(), name.end(), '_', ' ');
  std::string text =
      fmt::format("The following are multiple choice questions (with answers) about {}.\n\n", name);
  for (int i = 0; i < shots; ++i) {
    text += fmt::format("{} {}\n\n", asked(examples[i]), examples[i][5]);
  }
  return text;
}

}  // namespace

EvaluationReport evaluate_mmlu(const EvaluationInputs& inputs) {
  const fs::path folder(inputs.options.data);
  const int shots = inputs.options.shots;
  std::int64_t all = 0, all_right = 0, cut = 0;
  double sum_of_means = 0.0;
  Json::Object by_subject;
  NotFinite not_finite;
  for (const std::string& subject : subjects_of(inputs.options.data)) {
    const auto examples = read_questions(folder / "dev" / (subject + "_dev.csv"));
    if (static_cast<int>(examples.size()) < shots) {
      throw InputError(
          fmt::format("{}: {} examples, --shots is {}", subject, examples.size(), shots));
    }
    auto questions = read_questions(folder / "test" / (subject + std::string(test_ending)));
    if (inputs.options.limit > 0 &&
        questions.size() > static_cast<std::size_t>(inputs.options.limit)) {
      questions.resize(static_cast<std::size_t>(inputs.options.limit));
    }
    if (questions.empty()) {
      throw InputError(subject + ": holds no question");
    }
    std::vector<Choice> choices;
    for (const Question& question : questions) {
      choices.push_back({prompt(subject, examples, shots) + asked(question),
                         {" A", " B", " C", " D"},
                         static_cast<int>(letters.find(question[5]))});
    }
    std::int64_t right = 0;
    const auto chosen = choose(inputs, choices);
    for (std::size_t i = 0; i < choices.size(); ++i) {
      right += chosen[i].by_sum == choices[i].answer ? 1 : 0;
      cut += chosen[i].cut ? 1 : 0;
      note(chosen[i], fmt::format("question {} of {}", i + 1, subject), not_finite);
    }
    const auto count = static_cast<std::int64_t>(choices.size());
    const double mean = static_cast<double>(right) / static_cast<double>(count);
    by_subject.emplace_back(subject, Json::of(Json::Object{{"questions", Json::of(count)},
                                                           {"accuracy", Json::of(mean)}}));
    sum_of_means += mean;
    all += count;
    all_right += right;
  }
  EvaluationReport report;
  report.numbers = {
      {"subjects", Json::of(static_cast<std::int64_t>(by_subject.size()))},
      {"questions", Json::of(all)},
      {"shots", Json::of(std::int64_t{shots})},
      {"macro_accuracy", Json::of(sum_of_means / static_cast<double>(by_subject.size()))},
      {"micro_accuracy", Json::of(static_cast<double>(all_right) / static_cast<double>(all))},
      {"cut", Json::of(cut)}};
  report.details.emplace_back("by_subject", Json::of(by_subject));
  not_finite.tell(report);
  return report;
}

}  // namespace qnext
