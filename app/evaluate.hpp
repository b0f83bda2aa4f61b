// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/commands.hpp"
#include "app/language_model.hpp"
#include "app/text_tokens.hpp"
#include "io/json.hpp"

#include <string>
#include <vector>

namespace qnext {

/// What every kind of evaluation works with.
struct EvaluationInputs {
  const EvaluateOptions& options;
  LanguageModel& model;
  TextTokens& text;
  bool first = true;  // of the ranks: the one that writes files
};

/// What comes out: numbers in the order in which they are shown, and more for the file alone.
struct EvaluationReport {
  Json::Object numbers = {};
  Json::Object details = {};
  std::string failure = {};  // what makes the status 4

  bool passed() const { return failure.empty(); }
};

/// Where log-probabilities are not finite.
class NotFinite {
 public:
  void add(const std::string& place);

  /// Into the report: how many, the first places, and the failure.
  void tell(EvaluationReport& report) const;

 private:
  std::int64_t count_ = 0;
  Json::List places_;
};

/// Against golden logits: divergence in nats, agreement of the most probable token, difference.
EvaluationReport evaluate_logits(const EvaluationInputs& inputs);

/// Of texts or token files, document by document in windows.
EvaluationReport evaluate_perplexity(const EvaluationInputs& inputs);

/// Of continuations behind contexts, from JSONL.
EvaluationReport evaluate_loglikelihood(const EvaluationInputs& inputs);

/// Multiple choice, from JSONL.
EvaluationReport evaluate_choice(const EvaluationInputs& inputs);

/// The folder of MMLU: dev/SUBJECT_dev.csv and test/SUBJECT_test.csv.
EvaluationReport evaluate_mmlu(const EvaluationInputs& inputs);

/// A continuation behind a context, to be scored.
struct ScoredText {
  std::string context, continuation;
};

struct TextScore {
  double sum = 0.0;    // log-probability of the continuation, nats
  int tokens = 0;      // of the continuation
  int bytes = 0;       // of the continuation
  bool greedy = true;  // each token is the most probable one
  bool cut = false;    // the context lost its beginning
};

/// Scores all. The tokens are those of both texts together; what is more than those of the context
/// alone belongs to the continuation, and so do blanks at the end of the context. A context without
/// tokens is the end token. Texts that differ in their last token alone, one behind the other, are
/// computed once.
std::vector<TextScore> score_texts(const EvaluationInputs& inputs,
                                   const std::vector<ScoredText>& texts);

}  // namespace qnext
