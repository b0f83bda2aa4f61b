// SPDX-License-Identifier: Apache-2.0
#include "app/language_model.hpp"

#include "app/activations.hpp"
#include "app/model_start.hpp"
#include "app/pipeline_cut.hpp"
#include "app/precision.hpp"
#include "app/stage_messages.hpp"
#include "app/trained_model.hpp"
#include "core/fence.hpp"
#include "core/parts.hpp"
#include "core/require.hpp"
#include "layers/kernels/token_scores.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

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

// What ranks tell each other of one score.
struct Answer {
  int row;  // of those that were scored together
  int asked;
  TokenScore score;
};

// whole(i, first + j) = part(i, j)
template <class Real>
void copy_columns(const Exec& exec, const Tensor<const Real, 2>& part, int first,
                  const Tensor<Real, 2>& whole) {
  const int width = part.extent_int(1);
  Kokkos::parallel_for(
      "language_model::copy_columns",
      Kokkos::RangePolicy<Exec>(exec, 0, std::int64_t{1} * part.extent_int(0) * width),
      KOKKOS_LAMBDA(const std::int64_t n) {
        whole(n / width, first + n % width) = part(n / width, n % width);
      });
}

template <class Storage>
class ModelOfStorage : public LanguageModel {
 public:
  using Real = Accum<Storage>;

  ModelOfStorage(const ModelSource& source, int tokens, const ProcessGrid& grid)
      : most_(tokens),
        grid_(grid),
        trained_(source.model, false, grid, chunks_of_stage(source.model, tokens, grid)),
        memory_(trained_.model, {tokens, std::min(tokens, most_documents), 1}),
        messages_(grid, trained_.model),
        logits_("logits", block, source.model.vocabulary),
        low_("head_low", block, source.model.adapters.rank),
        parts_("logits of tensor ranks",
               grid.degrees.tensor > 1 ? std::int64_t{block} * source.model.vocabulary : 0) {
    start_weights(source.weights, 0, trained_.table, grid.world);
  }

  int vocabulary() const override { return trained_.model.config().vocabulary; }
  int most_tokens() const override { return most_; }

  std::vector<ScoresOfTokens> score(const std::vector<ScoredTokens>& documents) override {
    std::vector<ScoresOfTokens> scores(documents.size());
    std::vector<Row> rows;
    for (std::size_t d = 0; d < documents.size();) {
      Row& row = rows.emplace_back();
      do {
        add(documents[d], scores[d], row);
        ++d;
      } while (d < documents.size() && fits(row, documents[d].tokens));
    }
    std::vector<Answer> mine;
    const int count = static_cast<int>(rows.size()), ranks = grid_.degrees.data;
    for (int first = 0; first < count; first += ranks) {
      // Experts may be on other data ranks: one without a row computes the last one with them.
      const int r = first + grid_.place.data;
      answer(rows[std::min(r, count - 1)], std::min(r, count - 1), r < count, mine);
    }
    std::vector<Answer> all = grid_.world.all_gather(mine);
    std::sort(all.begin(), all.end(), [](const Answer& a, const Answer& b) {
      return std::pair(a.row, a.asked) < std::pair(b.row, b.asked);
    });
    for (const Answer& answer : all) {
      rows[answer.row].asked[answer.asked].answer->push_back(answer.score);
    }
    return scores;
  }

  std::vector<std::vector<double>> logits(const std::vector<std::vector<int>>& documents) override {
    std::vector<std::vector<double>> all;
    const int count = static_cast<int>(documents.size()), ranks = grid_.degrees.data;
    for (int first = 0; first < count; first += ranks) {
      // As in `score`: one without a document computes the last one with the others.
      const int d = first + grid_.place.data;
      const std::vector<int> spoken(speaks() && d < count ? 1 : 0, d);
      const auto numbers = grid_.world.all_gather(spoken);
      append(
          numbers,
          grid_.world.all_gather(logits_of_document(documents[std::min(d, count - 1)], d < count)),
          documents, all);
    }
    return all;
  }

  int passes_at_once() const override { return grid_.degrees.data; }

 private:
  // Whole layers, so that stages have about the same work.
  static std::vector<Chunk> chunks_of_stage(const ModelConfig& model, int tokens,
                                            const ProcessGrid& grid) {
    const int stages = grid.degrees.pipeline;
    return PipelineCut{stages, 1, balanced_cut(model, stages, 1, tokens)}.chunks_of(
        grid.place.pipeline);
  }

  bool last_stage() const { return grid_.place.pipeline == grid_.degrees.pipeline - 1; }
  bool speaks() const { return last_stage() && grid_.place.tensor == 0; }

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

  // The input of the head, (T, D) of all tensor ranks; nothing where another stage has it.
  Tensor<const Storage, 2> forward(const Row& row) {
    const MicrobatchShape shape{static_cast<int>(row.tokens.size()),
                                static_cast<int>(row.lengths.size()), 1};
    auto& slot = memory_.slot(0, 0, shape);
    const auto& work = memory_.work(shape);
    slot.batch = {on_device(row.tokens), on_device(row.labels), make_documents(row.lengths)};
    messages_.receive_input(slot);
    trained_.model.forward(exec_, slot.batch, Dropout{}, slot.saved, work);
    messages_.send_output(slot);
    return last_stage() ? trained_.model.head().all_rows(exec_, slot.saved.normed, work.head)
                        : Tensor<const Storage, 2>();
  }

  Tensor<Real, 2> logits_of(const Tensor<const Storage, 2>& normed, int first) {
    const int rows = std::min(block, normed.extent_int(0) - first), D = normed.extent_int(1);
    const Tensor<const Storage, 2> hidden(normed.data() + std::int64_t{first} * D, rows, D);
    const Tensor<Real, 2> logits(logits_.data(), rows, vocabulary());
    if (grid_.degrees.tensor == 1) {
      trained_.model.logits(exec_, hidden, logits, low_);
      return logits;
    }
    const auto& head = trained_.model.head();
    const int ranks = grid_.degrees.tensor;
    trained_.model.logits(exec_, hidden,
                          Tensor<Real, 2>(parts_.data() + std::int64_t{rows} * head.first_token(),
                                          rows, head.tokens_of_rank()),
                          low_);
    std::vector<std::int64_t> borders;
    for (int r = 0; r <= ranks; ++r) {
      borders.push_back(rows * part_begin(vocabulary(), r, ranks));
    }
    grid_.tensor.all_gather_parts(Tensor<Real, 1>(parts_.data(), borders.back()), borders);
    for (int r = 0; r < ranks; ++r) {
      const auto width = static_cast<int>((borders[r + 1] - borders[r]) / rows);
      copy_columns<Real>(exec_, Tensor<const Real, 2>(parts_.data() + borders[r], rows, width),
                         static_cast<int>(borders[r] / rows), logits);
    }
    return logits;
  }

  // Of a document that goes through the model alone; nothing where another rank speaks.
  std::vector<double> logits_of_document(const std::vector<int>& document, bool wanted) {
    Row row;
    ScoresOfTokens unused;
    add({document, {}}, unused, row);
    const auto normed = forward(row);
    std::vector<double> mine;
    for (int first = 0; first < normed.extent_int(0); first += block) {
      const auto host = on_host(logits_of(normed, first));
      if (speaks() && wanted) {
        mine.insert(mine.end(), host.data(), host.data() + host.size());
      }
    }
    return mine;
  }

  // `logits` of those `numbers` one behind the other, in the order of the ranks; `all` gets them in
  // that of the documents.
  void append(const std::vector<int>& numbers, const std::vector<double>& logits,
              const std::vector<std::vector<int>>& documents,
              std::vector<std::vector<double>>& all) const {
    all.resize(all.size() + numbers.size());
    auto begin = logits.begin();
    for (const int number : numbers) {
      const auto end = begin + static_cast<std::ptrdiff_t>(documents[number].size()) * vocabulary();
      all[number].assign(begin, end);
      begin = end;
    }
  }

  // Adds the answers of a row to `mine` where this rank speaks, and they are wanted.
  void answer(const Row& row, int number, bool wanted, std::vector<Answer>& mine) {
    const auto normed = forward(row);
    if (!last_stage()) {
      return;
    }
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
    for (int i = 0; wanted && speaks() && i < N; ++i) {
      mine.push_back({number, i, {log_probabilities(i), bests(i) == tokens[i]}});
    }
  }

  int most_;
  ProcessGrid grid_;
  TrainedModel<Storage> trained_;
  ActivationMemory<Storage> memory_;
  StageMessages<Storage> messages_;
  Tensor<Real, 2> logits_;  // (block, V)
  Tensor<Storage, 2> low_;  // (block, r)  for an adapter of the head
  Tensor<Real, 1> parts_;   // those of each tensor rank, (block, V / ranks) one behind the other
  Exec exec_;
};

}  // namespace

std::unique_ptr<LanguageModel> open_language_model(const ModelSource& source, int tokens,
                                                   const ProcessGrid& grid) {
  ModelSource evaluated = source;
  evaluated.model.balance = {};
  evaluated.model.recompute = Recompute::block;  // layers share their memory
  evaluated.model.layer.experts.capacity.rule = Capacity::Rule::dropless;
  return with_storage(source.precision, [&]<class Storage>() -> std::unique_ptr<LanguageModel> {
    return std::make_unique<ModelOfStorage<Storage>>(evaluated, tokens, grid);
  });
}

}  // namespace qnext
