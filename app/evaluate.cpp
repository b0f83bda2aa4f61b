// SPDX-License-Identifier: Apache-2.0
#include "app/evaluate.hpp"

#include "app/degrees.hpp"
#include "core/require.hpp"
#include "core/version.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <string_view>

namespace qnext {
namespace {

struct Kind {
  std::string_view name;
  EvaluationReport (*run)(const EvaluationInputs&);
};
constexpr std::array<Kind, 5> kinds{{{"logits", evaluate_logits},
                                     {"perplexity", evaluate_perplexity},
                                     {"loglikelihood", evaluate_loglikelihood},
                                     {"choice", evaluate_choice},
                                     {"mmlu", evaluate_mmlu}}};

const Kind& kind_named(const std::string& name) {
  for (const Kind& kind : kinds) {
    if (kind.name == name) {
      return kind;
    }
  }
  throw InputError("evaluate " + name +
                   ": wanted is logits, perplexity, loglikelihood, choice or mmlu");
}

// All that is needed to have the same numbers again.
Json::Object settings(const EvaluationInputs& inputs, const ModelSource& source) {
  const EvaluateOptions& o = inputs.options;
  const Version v = version();
  return {{"evaluation", Json::of(o.what)},
          {"model", Json::of(o.model)},
          {"data", Json::of(o.data)},
          {"tokenizer", Json::of(inputs.text.name())},
          {"precision", Json::of(std::string(name_of(source.precision)))},
          {"window", Json::of(std::int64_t{o.window})},
          {"limit", Json::of(o.limit)},
          {"separator", Json::of(o.separator)},
          {"adapter", Json::of(o.adapter)},
          {"version", Json::of(std::string(v.version))},
          {"commit", Json::of(std::string(v.commit))},
          {"backend", Json::of(std::string(v.backend))}};
}

void show(const EvaluationReport& report) {
  for (const auto& [name, value] : report.numbers) {
    std::fputs(fmt::format("{}={}\n", name, value.to_string()).c_str(), stdout);
  }
  if (!report.passed()) {
    std::fputs((report.failure + "\n").c_str(), stdout);
  }
}

void write(const std::string& path, const EvaluationReport& report, Json::Object object) {
  for (const auto& part : {report.numbers, report.details}) {
    object.insert(object.end(), part.begin(), part.end());
  }
  std::ofstream out(path, std::ios::binary);
  out << Json::of(object).to_string() << "\n";
  out.close();
  if (!out) {
    throw EnvironmentError(path + ": cannot be written");
  }
}

}  // namespace

void NotFinite::add(const std::string& place) {
  constexpr std::size_t most_places = 1000;
  ++count_;
  if (places_.size() < most_places) {
    places_.push_back(Json::of(place));
  }
}

void NotFinite::tell(EvaluationReport& report) const {
  if (count_ > 0) {
    report.numbers.emplace_back("not_finite", Json::of(count_));
    report.details.emplace_back("not_finite_at", Json::of(places_));
    report.failure = fmt::format("{} log-probabilities are not finite, the first of {}", count_,
                                 places_.front().text("place"));
  }
}

Status evaluate(const EvaluateOptions& options, const Communicator& world) {
  const Kind& kind = kind_named(options.what);
  if (options.window < 2) {
    throw InputError(fmt::format("--window {}: must be at least 2 tokens", options.window));
  }
  const ModelSource source = find_model(options.model, {}, options.precision, options.adapter);
  const ProcessGrid grid = decoding_grid(options.overrides, source.model, world);
  const auto model = open_language_model(source, options.window, grid);
  TextTokens text(find_tokenizer(source, options.tokenizer));
  const EvaluationInputs inputs{options, *model, text, world.first()};
  const EvaluationReport report = kind.run(inputs);
  if (world.first()) {
    show(report);
    if (!options.output.empty()) {
      write(options.output, report, settings(inputs, source));
    }
  }
  return report.passed() ? Status::done : Status::bad_number;
}

}  // namespace qnext
