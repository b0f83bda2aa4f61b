// SPDX-License-Identifier: Apache-2.0
#include "app/choices.hpp"
#include "app/evaluate.hpp"
#include "core/require.hpp"
#include "io/text/record_input.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>

namespace qnext {
namespace {

const std::string& text_of(const Json& json, const char* key, const std::string& where) {
  const Json* const found = json.find(key);
  if (found == nullptr) {
    throw InputError(fmt::format("{}: has no {}", where, key));
  }
  return found->text(fmt::format("{}: {}", where, key));
}

// Calls take(json, where) with each line.
void each_line(const EvaluationInputs& inputs,
               const std::function<void(const Json&, const std::string&)>& take) {
  const std::string& path = inputs.options.data;
  RecordInput input(path, "");
  std::int64_t count = 0;
  for (std::string line; input.next(line);) {
    if (inputs.options.limit > 0 && count == inputs.options.limit) {
      break;
    }
    const std::string where = fmt::format("{}:{}", path, input.line());
    take(Json::parse(line, where), where);
    ++count;
  }
  if (count == 0) {
    throw InputError(path + ": holds no line");
  }
}

Choice choice_of(const Json& json, const std::string& where) {
  Choice choice;
  choice.context = text_of(json, "context", where);
  const Json* const choices = json.find("choices");
  const Json* const answer = json.find("answer");
  if (choices == nullptr || answer == nullptr) {
    throw InputError(where + ": has no choices or no answer");
  }
  for (const Json& text : choices->list(where + ": choices")) {
    choice.choices.push_back(text.text(where + ": choices"));
  }
  const std::int64_t number = answer->integer(where + ": answer");
  if (number < 0 || number >= static_cast<std::int64_t>(choice.choices.size())) {
    throw InputError(fmt::format("{}: answer is {}, expected 0 to {}", where, number,
                                 static_cast<std::int64_t>(choice.choices.size()) - 1));
  }
  choice.answer = static_cast<int>(number);
  return choice;
}

}  // namespace

std::vector<Chosen> choose(const EvaluationInputs& inputs, const std::vector<Choice>& choices) {
  std::vector<ScoredText> texts;
  for (const Choice& choice : choices) {
    for (const std::string& text : choice.choices) {
      texts.push_back({choice.context, text});
    }
  }
  const std::vector<TextScore> scores = score_texts(inputs, texts);
  std::vector<Chosen> results;
  auto score = scores.begin();
  for (const Choice& choice : choices) {
    const auto end = score + static_cast<std::ptrdiff_t>(choice.choices.size());
    Chosen chosen;
    const auto best = [&](auto&& less) {
      return static_cast<int>(std::max_element(score, end, less) - score);
    };
    chosen.by_sum = best([](const TextScore& a, const TextScore& b) { return a.sum < b.sum; });
    chosen.by_byte = best([](const TextScore& a, const TextScore& b) {
      return a.sum / std::max(a.bytes, 1) < b.sum / std::max(b.bytes, 1);
    });
    for (; score != end; ++score) {
      chosen.sums.push_back(score->sum);
      chosen.cut = chosen.cut || score->cut;
    }
    results.push_back(chosen);
  }
  return results;
}

void note(const Chosen& chosen, const std::string& place, NotFinite& not_finite) {
  for (std::size_t i = 0; i < chosen.sums.size(); ++i) {
    if (!std::isfinite(chosen.sums[i])) {
      not_finite.add(fmt::format("choice {} of {}", i, place));
    }
  }
}

EvaluationReport evaluate_loglikelihood(const EvaluationInputs& inputs) {
  std::vector<ScoredText> texts;
  each_line(inputs, [&](const Json& json, const std::string& where) {
    texts.push_back({text_of(json, "context", where), text_of(json, "continuation", where)});
  });
  double sum = 0.0;
  std::int64_t tokens = 0, greedy = 0, cut = 0;
  Json::List items;
  NotFinite not_finite;
  for (const TextScore& score : score_texts(inputs, texts)) {
    if (!std::isfinite(score.sum)) {
      not_finite.add(fmt::format("item {}", items.size() + 1));
    }
    sum += score.sum;
    tokens += score.tokens;
    greedy += score.greedy ? 1 : 0;
    cut += score.cut ? 1 : 0;
    items.push_back(Json::of(Json::Object{{"sum", Json::of(score.sum)},
                                          {"per_token", Json::of(score.sum / score.tokens)},
                                          {"tokens", Json::of(std::int64_t{score.tokens})},
                                          {"greedy", Json::of(score.greedy)}}));
  }
  const auto count = static_cast<std::int64_t>(texts.size());
  EvaluationReport report;
  report.numbers = {{"items", Json::of(count)},
                    {"tokens", Json::of(tokens)},
                    {"sum", Json::of(sum)},
                    {"per_token", Json::of(sum / static_cast<double>(tokens))},
                    {"greedy", Json::of(static_cast<double>(greedy) / static_cast<double>(count))},
                    {"cut", Json::of(cut)}};
  report.details.emplace_back("scores", Json::of(items));
  not_finite.tell(report);
  return report;
}

EvaluationReport evaluate_choice(const EvaluationInputs& inputs) {
  std::vector<Choice> choices;
  each_line(inputs, [&](const Json& json, const std::string& where) {
    choices.push_back(choice_of(json, where));
  });
  const std::vector<Chosen> chosen = choose(inputs, choices);
  std::int64_t right = 0, right_by_byte = 0, cut = 0;
  Json::List items;
  NotFinite not_finite;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    note(chosen[i], fmt::format("item {}", i + 1), not_finite);
    right += chosen[i].by_sum == choices[i].answer ? 1 : 0;
    right_by_byte += chosen[i].by_byte == choices[i].answer ? 1 : 0;
    cut += chosen[i].cut ? 1 : 0;
    Json::List sums;
    for (const double sum : chosen[i].sums) {
      sums.push_back(Json::of(sum));
    }
    items.push_back(Json::of(Json::Object{{"chosen", Json::of(std::int64_t{chosen[i].by_sum})},
                                          {"answer", Json::of(std::int64_t{choices[i].answer})},
                                          {"sums", Json::of(sums)}}));
  }
  const auto count = static_cast<double>(choices.size());
  EvaluationReport report;
  report.numbers = {{"items", Json::of(static_cast<std::int64_t>(choices.size()))},
                    {"accuracy", Json::of(static_cast<double>(right) / count)},
                    {"accuracy_per_byte", Json::of(static_cast<double>(right_by_byte) / count)},
                    {"cut", Json::of(cut)}};
  report.details.emplace_back("choices", Json::of(items));
  not_finite.tell(report);
  return report;
}

}  // namespace qnext
