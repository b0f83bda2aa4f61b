// SPDX-License-Identifier: Apache-2.0
#include "app/language_model.hpp"

#include "app/activations.hpp"
#include "app/model_start.hpp"
#include "app/precision.hpp"
#include "app/trained_model.hpp"
#include "core/fence.hpp"
#include "core/require.hpp"
#include "layers/kernels/token_scores.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace qnext {
namespace {

constexpr int block = 64;           // rows of logits that exist at once
constexpr int most_documents = 32;  // of a forward pass: each has states of its own

template <class T>
Tensor<const T, 1> on_device(const std::vector<T>& values) {
  const Tensor<T, 1> device("values", values.size());
  Kokkos::deep_copy(device, HostTensor<const T, 1>(values.data(), values.size()));
  return device;
}

template <class View>
auto on_host(const View& device) {
  fence(Exec{}, "language model: results are read on the host");
  return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), device);
}

// One token that is scored behind the one at place t.
struct Asked {
  int t;
  int token;
  std::vector<TokenScore>* answer;
};

// Documents that go through the model together.
struct Row {
  std::vector<int> tokens, labels;  // (T)  labels: the next token; 0 behind the last of a document
  std::vector<int> lengths;
  std::vector<Asked> asked;  // in the order of t
};

template <class Storage>
class ModelOfStorage : public LanguageModel {
 public:
  using Real = Accum<Storage>;

  ModelOfStorage(const ModelSource& source, int tokens)
      : most_(tokens),
        trained_(source.model, false),
        memory_(trained_.model, {tokens, std::min(tokens, most_documents), 1}),
        logits_("logits", block, source.model.vocabulary) {
    start_weights(source.weights, 0, trained_.table);
  }

  int vocabulary() const override { return trained_.model.config().vocabulary; }
  int most_tokens() const override { return most_; }

  std::vector<ScoresOfTokens> score(const std::vector<ScoredTokens>& documents) override {
    std::vector<ScoresOfTokens> scores(documents.size());
    for (std::size_t d = 0; d < documents.size();) {
      Row row;
      do {
        add(documents[d], scores[d], row);
        ++d;
      } while (d < documents.size() && fits(row, documents[d].tokens));
      answer(row);
    }
    return scores;
  }

  std::vector<double> logits(const std::vector<int>& document) override {
    Row row;
    ScoresOfTokens unused;
    add({document, {}}, unused, row);
    const auto normed = forward(row);
    std::vector<double> all;
    for (int first = 0; first < normed.extent_int(0); first += block) {
      const auto host = on_host(logits_of(normed, first));
      all.insert(all.end(), host.data(), host.data() + host.size());
    }
    return all;
  }

 private:
  bool fits(const Row& row, const std::vector<int>& document) const {
    return row.lengths.size() < most_documents &&
           row.tokens.size() + document.size() <= static_cast<std::size_t>(most_);
  }

  void check(const std::vector<int>& tokens) const {
    for (const int token : tokens) {
      if (token < 0 || token >= vocabulary()) {
        throw InputError(fmt::format("a text has the token {}; this model knows 0 to {}", token,
                                     vocabulary() - 1));
      }
    }
  }

  void add(const ScoredTokens& document, ScoresOfTokens& scores, Row& row) const {
    const auto& tokens = document.tokens;
    if (tokens.empty() || tokens.size() > static_cast<std::size_t>(most_)) {
      throw InputError(
          fmt::format("a text has {} tokens, expected 1 to {} (--window)", tokens.size(), most_));
    }
    check(tokens);
    check(document.next);
    int t = static_cast<int>(row.tokens.size());
    for (std::size_t i = 1; i < tokens.size(); ++i, ++t) {
      row.asked.push_back({t, tokens[i], &scores.tokens});
    }
    for (const int token : document.next) {
      row.asked.push_back({t, token, &scores.next});
    }
    row.tokens.insert(row.tokens.end(), tokens.begin(), tokens.end());
    row.labels.insert(row.labels.end(), tokens.begin() + 1, tokens.end());
    row.labels.push_back(0);
    row.lengths.push_back(static_cast<int>(tokens.size()));
  }

  // The input of the head, (T, D).
  Tensor<const Storage, 2> forward(const Row& row) {
    const MicrobatchShape shape{static_cast<int>(row.tokens.size()),
                                static_cast<int>(row.lengths.size()), 1};
    auto& slot = memory_.slot(0, 0, shape);
    slot.batch = {on_device(row.tokens), on_device(row.labels), make_documents(row.lengths)};
    trained_.model.forward(exec_, slot.batch, Dropout{}, slot.saved, memory_.work(shape));
    return slot.saved.normed;
  }

  Tensor<Real, 2> logits_of(const Tensor<const Storage, 2>& normed, int first) {
    const int rows = std::min(block, normed.extent_int(0) - first), D = normed.extent_int(1);
    const Tensor<Real, 2> logits(logits_.data(), rows, vocabulary());
    trained_.model.logits(
        exec_, Tensor<const Storage, 2>(normed.data() + std::int64_t{first} * D, rows, D), logits);
    return logits;
  }

  void answer(const Row& row) {
    const auto normed = forward(row);
    const int N = static_cast<int>(row.asked.size());
    std::vector<int> rows, tokens;  // of a block of logits; (N)
    for (const Asked& asked : row.asked) {
      rows.push_back(asked.t % block);
      tokens.push_back(asked.token);
    }
    const Tensor<const int, 1> all_rows = on_device(rows), all_tokens = on_device(tokens);
    const Tensor<double, 1> log_probability("log_probability", N);
    const Tensor<int, 1> best("best", N);
    for (int first = 0, begin = 0, end = 0; begin < N; first += block, begin = end) {
      while (end < N && row.asked[end].t < first + block) {
        ++end;
      }
      const int n = end - begin;
      if (n == 0) {
        continue;
      }
      score_tokens<Real>(exec_, logits_of(normed, first),
                         Tensor<const int, 1>(all_rows.data() + begin, n),
                         Tensor<const int, 1>(all_tokens.data() + begin, n),
                         Tensor<double, 1>(log_probability.data() + begin, n),
                         Tensor<int, 1>(best.data() + begin, n));
    }
    const auto log_probabilities = on_host(log_probability);
    const auto bests = on_host(best);
    for (int i = 0; i < N; ++i) {
      row.asked[i].answer->push_back({log_probabilities(i), bests(i) == tokens[i]});
    }
  }

  int most_;
  TrainedModel<Storage> trained_;
  ActivationMemory<Storage> memory_;
  Tensor<Real, 2> logits_;  // (block, V)
  Exec exec_;
};

}  // namespace

std::unique_ptr<LanguageModel> open_language_model(const ModelSource& source, int tokens) {
  ModelSource evaluated = source;
  evaluated.model.recompute = Recompute::block;  // layers share their memory
  evaluated.model.layer.experts.capacity.rule = Capacity::Rule::dropless;
  return with_storage(source.precision, [&]<class Storage>() -> std::unique_ptr<LanguageModel> {
    return std::make_unique<ModelOfStorage<Storage>>(evaluated, tokens);
  });
}

}  // namespace qnext
