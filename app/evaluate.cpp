// SPDX-License-Identifier: Apache-2.0
#include "app/evaluate.hpp"

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

void write(const std::string& path, const Json::Object& object) {
  std::ofstream out(path, std::ios::binary);
  out << Json::of(object).to_string() << "\n";
  out.close();
  if (!out) {
    throw EnvironmentError(path + ": cannot be written");
  }
}

}  // namespace

Status evaluate(const EvaluateOptions& options) {
  const Kind& kind = kind_named(options.what);
  if (options.window < 2) {
    throw InputError(fmt::format("--window {}: must be at least 2 tokens", options.window));
  }
  const ModelSource source = find_model(options.model, {}, options.precision, options.adapter);
  const auto model = open_language_model(source, options.window);
  TextTokens text(options.tokenizer.empty() ? source.tokenizer : options.tokenizer);
  const EvaluationInputs inputs{options, *model, text};
  const EvaluationReport report = kind.run(inputs);
  for (const auto& [name, value] : report.numbers) {
    std::fputs(fmt::format("{}={}\n", name, value.to_string()).c_str(), stdout);
  }
  if (!options.output.empty()) {
    Json::Object all = settings(inputs, source);
    for (const auto& part : {report.numbers, report.details}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    write(options.output, all);
  }
  if (!report.passed) {
    std::fputs(fmt::format("the divergence is above --max-kl {}\n", options.max_kl).c_str(),
               stdout);
    return Status::bad_number;
  }
  return Status::done;
}

}  // namespace qnext
