// SPDX-License-Identifier: Apache-2.0
#include "app/evaluate.hpp"
#include "core/require.hpp"
#include "io/text/record_input.hpp"
#include "io/token_source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace qnext {
namespace {

// A window of a document: its tokens, of which the last `scored` are new.
struct Window {
  std::vector<int> tokens;
  int scored;
  std::int64_t document, begin;  // counted from 1; from 0
};

// Windows of at most W tokens, each `stride` behind the one before. Every token of the document
// but the first is scored once, with at least W - stride tokens before it as soon as there are so
// many.
void cut(const std::vector<int>& document, std::int64_t number, int most, int stride,
         std::vector<Window>& windows) {
  const auto length = static_cast<std::int64_t>(document.size());
  std::int64_t done = 1;  // tokens that are scored, or have nothing before them
  for (std::int64_t begin = 0; done < length; begin += stride) {
    const std::int64_t end = std::min<std::int64_t>(begin + most, length);
    windows.push_back({{document.begin() + begin, document.begin() + end},
                       static_cast<int>(end - done),
                       number,
                       begin});
    done = end;
  }
}

struct Sums {
  std::int64_t documents = 0, tokens = 0, bytes = 0;
  double loss = 0.0;  // nats
};

class Perplexity {
 public:
  explicit Perplexity(const EvaluationInputs& inputs)
      : inputs_(inputs),
        most_(inputs.model.most_tokens()),
        stride_(inputs.options.stride > 0 ? inputs.options.stride : most_ - 1) {
    if (stride_ >= most_) {
      throw InputError(fmt::format("--stride {}: must be less than --window, {}", stride_, most_));
    }
  }

  Sums run() {
    const std::string& path = inputs_.options.data;
    if (path.ends_with(".bin") || path.ends_with(".idx") ||
        std::filesystem::exists(path + ".idx")) {
      tokens(path);
    } else {
      text(path);
    }
    flush();
    if (sums_.tokens == 0) {
      throw InputError(path + ": holds no token to score: a document needs two");
    }
    return sums_;
  }

  int stride() const { return stride_; }
  const NotFinite& not_finite() const { return not_finite_; }

 private:
  bool enough() const {
    return inputs_.options.limit > 0 && sums_.documents >= inputs_.options.limit;
  }

  void tokens(const std::string& path) {
    const auto source = open_indexed(path);
    for (std::int64_t d = 0; d < source->documents() && !enough(); ++d) {
      const std::int64_t begin = source->document_begin(d);
      std::vector<std::int32_t> ids(
          static_cast<std::size_t>(source->document_begin(d + 1) - begin));
      source->read(begin, static_cast<std::int64_t>(ids.size()), ids.data());
      add({ids.begin(), ids.end()}, 0);
    }
  }

  void text(const std::string& path) {
    RecordInput input(path, inputs_.options.separator);
    for (std::string record; !enough() && input.next(record);) {
      const std::string where = fmt::format("{}:{}", path, input.line());
      if (input.jsonl()) {
        const Json json = Json::parse(record, where);
        const Json* const text = json.find("text");
        if (text == nullptr) {
          throw InputError(where + ": has no text");
        }
        record = text->text(where + ": text");
      }
      add(inputs_.text.encode(record), static_cast<std::int64_t>(record.size()));
    }
  }

  void add(const std::vector<int>& document, std::int64_t bytes) {
    ++sums_.documents;
    sums_.bytes += bytes;
    cut(document, sums_.documents, most_, stride_, windows_);
    if (windows_.size() >= 256) {
      flush();
    }
  }

  void flush() {
    std::vector<ScoredTokens> documents;
    for (const Window& window : windows_) {
      documents.push_back({window.tokens, {}});
    }
    const auto scores = inputs_.model.score(documents);
    for (std::size_t w = 0; w < windows_.size(); ++w) {
      const auto& tokens = scores[w].tokens;
      for (std::size_t i = tokens.size() - windows_[w].scored; i < tokens.size(); ++i) {
        sums_.loss -= tokens[i].log_probability;
        if (!std::isfinite(tokens[i].log_probability)) {
          not_finite_.add(fmt::format("token {} of document {}", windows_[w].begin + i + 2,
                                      windows_[w].document));
        }
        ++sums_.tokens;
      }
    }
    windows_.clear();
  }

  const EvaluationInputs& inputs_;
  int most_, stride_;
  std::vector<Window> windows_;
  Sums sums_;
  NotFinite not_finite_;
};

}  // namespace

EvaluationReport evaluate_perplexity(const EvaluationInputs& inputs) {
  Perplexity perplexity(inputs);
  const Sums sums = perplexity.run();
  const double mean = sums.loss / static_cast<double>(sums.tokens);
  EvaluationReport report;
  report.numbers.emplace_back("documents", Json::of(sums.documents));
  report.numbers.emplace_back("tokens", Json::of(sums.tokens));
  report.numbers.emplace_back("stride", Json::of(std::int64_t{perplexity.stride()}));
  report.numbers.emplace_back("loss", Json::of(mean));
  report.numbers.emplace_back("perplexity", Json::of(std::exp(mean)));
  if (sums.bytes > 0) {
    report.numbers.emplace_back(
        "bits_per_byte", Json::of(sums.loss / std::log(2.0) / static_cast<double>(sums.bytes)));
  }
  perplexity.not_finite().tell(report);
  return report;
}

}  // namespace qnext
