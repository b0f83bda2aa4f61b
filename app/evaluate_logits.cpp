// SPDX-License-Identifier: Apache-2.0
#include "app/evaluate.hpp"
#include "core/require.hpp"
#include "io/hdf5_file.hpp"
#include "io/text/record_input.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <span>

namespace qnext {
namespace {

constexpr std::int64_t longest_line = std::int64_t{1} << 32;  // bytes: all logits of a prompt

struct Prompt {
  std::string prompt;
  std::vector<int> tokens;     // (T)
  std::vector<double> logits;  // (T, V), or empty: nothing to compare with
};

bool is_hdf5(const std::string& path) {
  return path.ends_with(".h5") || path.ends_with(".hdf5");
}

Prompt parse(const std::string& line, const std::string& where, TextTokens& text) {
  const Json json = Json::parse(line, where, {longest_line, 32});
  json.object(where);
  Prompt prompt;
  if (const Json* const found = json.find("prompt")) {
    prompt.prompt = found->text(where + ": prompt");
  }
  if (const Json* const tokens = json.find("tokens")) {
    for (const Json& token : tokens->list(where + ": tokens")) {
      prompt.tokens.push_back(static_cast<int>(token.integer(where + ": tokens")));
    }
  } else {
    prompt.tokens = text.encode(prompt.prompt);
  }
  if (prompt.tokens.empty()) {
    throw InputError(where + ": has neither tokens nor a prompt");
  }
  if (const Json* const logits = json.find("logits")) {
    const auto& rows = logits->list(where + ": logits");
    for (const Json& row : rows) {
      const auto& values = row.list(where + ": logits");
      if (values.size() != rows.front().list("").size()) {
        throw InputError(fmt::format("{}: logits: a row has {} numbers, the first one {}", where,
                                     values.size(), rows.front().list("").size()));
      }
      for (const Json& value : values) {
        prompt.logits.push_back(value.real(where + ": logits"));
      }
    }
    if (rows.size() != prompt.tokens.size() || prompt.logits.empty()) {
      throw InputError(fmt::format("{}: logits: {} rows for {} tokens", where, rows.size(),
                                   prompt.tokens.size()));
    }
  }
  return prompt;
}

std::vector<Prompt> read_jsonl(const std::string& path, TextTokens& text) {
  std::vector<Prompt> prompts;
  RecordInput input(path, "");
  for (std::string line; input.next(line);) {
    prompts.push_back(parse(line, fmt::format("{}:{}", path, input.line()), text));
  }
  return prompts;
}

// Groups of `tokens` (T) and `logits` (T, V) below /prompts, or below /runs as golden files have
// them, whose runs of several rows or documents are left out.
std::vector<Prompt> read_hdf5(const std::string& path) {
  const Hdf5File file(path);
  const std::string all = file.exists("/prompts") ? "/prompts" : "/runs";
  std::vector<Prompt> prompts;
  for (const std::string& name : file.list(all)) {
    const std::string group = all + "/" + name;
    if (file.describe(group + "/tokens").extents.size() != 1 ||
        file.exists(group + "/document_starts")) {
      continue;
    }
    Prompt prompt;
    prompt.prompt = file.exists(group + "/prompt") ? file.read_text(group + "/prompt") : name;
    prompt.tokens = file.read_dataset<int>(group + "/tokens").values;
    if (file.exists(group + "/logits")) {
      const auto logits = file.read_dataset<double>(group + "/logits");
      if (logits.extents.size() != 2 ||
          logits.extents[0] != static_cast<std::int64_t>(prompt.tokens.size())) {
        throw InputError(fmt::format("{}: {}/logits has the extents {} for {} tokens", path, group,
                                     to_string(logits.extents), prompt.tokens.size()));
      }
      prompt.logits = logits.values;
    }
    prompts.push_back(prompt);
  }
  return prompts;
}

// log softmax.
std::vector<double> log_probabilities(std::span<const double> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const double logit : logits) {
    sum += std::exp(logit - top);
  }
  std::vector<double> logs;
  for (const double logit : logits) {
    logs.push_back(logit - top - std::log(sum));
  }
  return logs;
}

// The larger one; NaN is larger than all numbers.
double worse(double a, double b) {
  return std::isnan(a) || b <= a ? a : b;
}

struct Difference {
  double max_kl = 0.0, sum_kl = 0.0;
  double max_difference = 0.0;
  std::int64_t positions = 0, agree = 0;

  // Divergence of the model from the golden probabilities: sum_v p_v (log p_v - log q_v).
  void add(std::span<const double> golden, std::span<const double> model) {
    const auto p = log_probabilities(golden), q = log_probabilities(model);
    double kl = 0.0;
    for (std::size_t v = 0; v < p.size(); ++v) {
      kl += std::exp(p[v]) * (p[v] - q[v]);
      max_difference = worse(max_difference, std::abs(golden[v] - model[v]));
    }
    max_kl = worse(max_kl, kl);
    sum_kl += kl;
    ++positions;
    agree += std::max_element(p.begin(), p.end()) - p.begin() ==
                     std::max_element(q.begin(), q.end()) - q.begin()
                 ? 1
                 : 0;
  }
};

/// Writes prompts with this model's logits, in the form that was read.
class Writer {
 public:
  explicit Writer(const std::string& path) : path_(path) {
    if (path.empty()) {
      return;
    }
    if (is_hdf5(path)) {
      hdf5_ = std::make_unique<Hdf5File>(Hdf5File::create(path));
      hdf5_->create_group("/prompts");
      return;
    }
    jsonl_.reset(std::fopen(path.c_str(), "wb"));
    if (jsonl_ == nullptr) {
      throw EnvironmentError(path + ": cannot be written");
    }
  }

  void add(const Prompt& prompt, const std::vector<double>& logits) {
    const std::size_t T = prompt.tokens.size(), V = logits.size() / T;
    if (hdf5_) {
      const std::string group = fmt::format("/prompts/{:06}", count_++);
      hdf5_->write_text(group + "/prompt", prompt.prompt);
      hdf5_->write_dataset(group + "/tokens", prompt.tokens, {static_cast<std::int64_t>(T)});
      const std::vector<float> values(logits.begin(), logits.end());
      hdf5_->write_dataset(group + "/logits", values,
                           {static_cast<std::int64_t>(T), static_cast<std::int64_t>(V)});
    } else if (jsonl_) {
      std::string line =
          fmt::format("{{\"prompt\": {}, \"tokens\": [{}], \"logits\": [",
                      Json::of(prompt.prompt).to_string(), fmt::join(prompt.tokens, ", "));
      for (std::size_t t = 0; t < T; ++t) {
        line += fmt::format("{}[{:.9g}]", t == 0 ? "" : ", ",
                            fmt::join(&logits[t * V], &logits[t * V] + V, ", "));
      }
      line += "]}\n";
      std::fwrite(line.data(), 1, line.size(), jsonl_.get());
    }
  }

  void close() {
    if (hdf5_) {
      hdf5_->close();
    }
    if (jsonl_ && (std::fflush(jsonl_.get()) != 0 || std::ferror(jsonl_.get()) != 0)) {
      throw EnvironmentError(path_ + ": the disk does not take it");
    }
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<Hdf5File> hdf5_;
  std::unique_ptr<std::FILE, Close> jsonl_;
  int count_ = 0;
};

void compare(const Prompt& prompt, const std::vector<double>& logits, Difference& difference) {
  const std::size_t T = prompt.tokens.size();
  const std::size_t golden = prompt.logits.size() / T, model = logits.size() / T;
  const std::size_t V = std::min(golden, model);  // a table may be filled up to a round number
  for (std::size_t t = 0; t < T; ++t) {
    difference.add({&prompt.logits[t * golden], V}, {&logits[t * model], V});
  }
}

}  // namespace

EvaluationReport evaluate_logits(const EvaluationInputs& inputs) {
  const std::string& path = inputs.options.data;
  const std::vector<Prompt> prompts =
      is_hdf5(path) ? read_hdf5(path) : read_jsonl(path, inputs.text);
  Writer writer(inputs.first ? inputs.options.write : "");
  Difference all;
  // Few at a time: the logits of a prompt are large.
  const auto at_once = static_cast<std::size_t>(inputs.model.passes_at_once());
  for (std::size_t first = 0; first < prompts.size(); first += at_once) {
    const std::size_t end = std::min(first + at_once, prompts.size());
    std::vector<std::vector<int>> documents;
    for (std::size_t i = first; i < end; ++i) {
      documents.push_back(prompts[i].tokens);
    }
    const auto logits = inputs.model.logits(documents);
    for (std::size_t i = first; i < end; ++i) {
      writer.add(prompts[i], logits[i - first]);
      if (!prompts[i].logits.empty()) {
        compare(prompts[i], logits[i - first], all);
      }
    }
  }
  writer.close();
  EvaluationReport report;
  report.numbers.emplace_back("prompts", Json::of(static_cast<std::int64_t>(prompts.size())));
  report.numbers.emplace_back("positions", Json::of(all.positions));
  if (all.positions > 0) {
    const auto positions = static_cast<double>(all.positions);
    report.numbers.emplace_back("max_kl", Json::of(all.max_kl));
    report.numbers.emplace_back("mean_kl", Json::of(all.sum_kl / positions));
    report.numbers.emplace_back("top1_agreement",
                                Json::of(static_cast<double>(all.agree) / positions));
    report.numbers.emplace_back("max_difference", Json::of(all.max_difference));
    if (!(all.max_kl <= inputs.options.max_kl)) {  // NaN too
      report.failure = fmt::format("the divergence is above --max-kl {}", inputs.options.max_kl);
    }
  } else if (inputs.options.write.empty()) {
    throw InputError(path + ": holds no logits to compare with, and --write asks for none");
  }
  return report;
}

}  // namespace qnext
