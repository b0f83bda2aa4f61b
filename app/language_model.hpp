// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/model_source.hpp"
#include "parallel/process_grid.hpp"

#include <memory>
#include <vector>

namespace qnext {

/// What a model says of one token behind those before it.
struct TokenScore {
  double log_probability = 0.0;  // nats
  bool greedy = false;           // no other token is more probable
};

/// Tokens that are scored behind each other, and further ones of which each is scored behind all.
struct ScoredTokens {
  std::vector<int> tokens = {};
  std::vector<int> next = {};
};

struct ScoresOfTokens {
  std::vector<TokenScore> tokens = {};  // of all but the first
  std::vector<TokenScore> next = {};
};

/// A trained model that judges texts, whatever its precision is. Every call is made by all ranks of
/// its grid with the same texts, and answers all of them.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  virtual int vocabulary() const = 0;
  virtual int most_tokens() const = 0;  // of one document

  /// Short documents share a forward pass, in which none sees another. Data ranks take the passes
  /// in turns; what shares one, and so every bit, does not depend on their number.
  virtual std::vector<ScoresOfTokens> score(const std::vector<ScoredTokens>& documents) = 0;

  /// logits (T, V) of each document, one in each forward pass. Data ranks take these in turns too.
  virtual std::vector<std::vector<double>> logits(
      const std::vector<std::vector<int>>& documents) = 0;

  /// So many forward passes go on at a time: the data ranks.
  virtual int passes_at_once() const = 0;
};

/// `tokens`: of one forward pass, and of a document, at most.
std::unique_ptr<LanguageModel> open_language_model(const ModelSource& source, int tokens,
                                                   const ProcessGrid& grid = {});

}  // namespace qnext
