// SPDX-License-Identifier: Apache-2.0
#include "layers/multi_token_prediction.hpp"

#include "core/matmul.hpp"
#include "core/team.hpp"

namespace qnext {
namespace {

// Tokens and labels move one place to the left inside each document, which may go on on the right
// neighbour.
struct Shift {
  Documents documents;
  Tensor<const int, 1> tokens;
  Tensor<const int, 1> labels;
  Tensor<const int, 2> behind;
  Tensor<int, 1> next_tokens;
  Tensor<int, 1> next_labels;

  KOKKOS_FUNCTION void operator()(const int t) const {
    const int n = documents.document(t);
    const int row = documents.leaves.extent(0) == 0 ? -1 : documents.leaves(n);
    if (t + 1 < documents.begin(n + 1)) {
      next_tokens(t) = tokens(t + 1);
      next_labels(t) = labels(t + 1);
    } else if (row >= 0) {
      next_tokens(t) = behind(row, 0);
      next_labels(t) = behind(row, 1);
    } else {
      // Behind the end of a piece the label is the next token of the text, if there is one.
      next_tokens(t) = labels(t) >= 0 ? labels(t) : 0;
      next_labels(t) = -1;
    }
  }
};

// joined = [left | right], or back.
template <class Storage>
struct Join {
  Tensor<Storage, 2> joined;      // (T, 2D)
  Tensor<const Storage, 2> half;  // (T, D)
  int column;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    for_each_in(team, half.extent_int(1), [&](const int d) { joined(t, column + d) = half(t, d); });
  }
};

template <class Storage>
struct Split {
  Tensor<const Storage, 2> joined;  // (T, 2D)
  Tensor<Storage, 2> half;          // (T, D)
  int column;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    for_each_in(team, half.extent_int(1), [&](const int d) { half(t, d) = joined(t, column + d); });
  }
};

// The dropout of the module's layer is keyed as if it stood behind all others.
constexpr std::uint64_t layer_place = 0xffffffu;

}  // namespace

template <class Storage>
MultiTokenPrediction<Storage>::MultiTokenPrediction(const DecoderLayerConfig& config,
                                                    double init_deviation, const ProcessGrid& grid,
                                                    ParameterTable& table)
    : width_(config.width),
      grid_(grid),
      adapters_(table.adapters()),
      fc_(table, grid,
          grid.replicated({.name = "mtp.fc.weight",
                           .shard = Shard::whole({config.width, 2 * config.width}),
                           .init = Init::normal(init_deviation)})),
      embedding_norm_(table, "mtp.pre_fc_norm_embedding.weight", config.width, config.norm_epsilon,
                      grid),
      hidden_norm_(table, "mtp.pre_fc_norm_hidden.weight", config.width, config.norm_epsilon, grid),
      layer_(config, Mixer::attention, Mlp::experts, grid, table, "mtp.layers.0"),
      norm_(table, "mtp.norm.weight", config.width, config.norm_epsilon, grid) {}

template <class Storage>
typename MultiTokenPrediction<Storage>::Saved MultiTokenPrediction<Storage>::reserve_saved(
    Arena& arena, const MicrobatchShape& shape) const {
  const int T = RowSplit(grid_, shape.tokens, shape.sequences).rows();
  Saved saved;
  saved.tokens = arena.reserve<int, 1>("tokens", shape.tokens);
  saved.labels = arena.reserve<int, 1>("labels", shape.tokens);
  saved.embedded = arena.reserve<Real, 2>("embedded", T, width_);
  saved.embedded_scale = arena.reserve<Real, 1>("embedded_scale", T);
  saved.hidden_scale = arena.reserve<Real, 1>("hidden_scale", T);
  saved.joined = arena.reserve<Storage, 2>("joined", T, 2 * width_);
  saved.input = arena.reserve<Real, 2>("input", T, width_);
  saved.layer = layer_.reserve_saved(arena, shape);
  saved.output = arena.reserve<Real, 2>("output", T, width_);
  saved.output_scale = arena.reserve<Real, 1>("output_scale", T);
  saved.normed = arena.reserve<Storage, 2>("normed", T, width_);
  return saved;
}

template <class Storage>
typename MultiTokenPrediction<Storage>::Work MultiTokenPrediction<Storage>::reserve_work(
    Arena& arena, const MicrobatchShape& shape) const {
  const int T = RowSplit(grid_, shape.tokens, shape.sequences).rows();
  Work work;
  work.dnormed = arena.reserve<Storage, 2>("dnormed", T, width_);
  work.gradient = arena.reserve<Real, 2>("gradient", T, width_);
  work.part = arena.reserve<Storage, 2>("part", T, width_);
  work.djoined = arena.reserve<Storage, 2>("djoined", T, 2 * width_);
  if (fc_.has_adapter()) {
    work.low = Adapter<Storage>::reserve_low(arena, adapters_, T);
  }
  work.norm = norm_.reserve_work(arena, T);
  return work;
}

template <class Storage>
void MultiTokenPrediction<Storage>::forward(
    const Exec& exec, const Documents& documents, const Tensor<const int, 1>& tokens,
    const Tensor<const int, 1>& labels, const Tensor<const int, 2>& behind,
    const Embedding<Storage>& embedding, const Tensor<const Storage, 2>& h, const Dropout& dropout,
    Saved& saved, const Work& work, const typename DecoderLayer<Storage>::Work& layer_work) const {
  Kokkos::parallel_for("multi_token_prediction::shift",
                       Kokkos::RangePolicy<Exec>(exec, 0, tokens.extent_int(0)),
                       Shift{documents, tokens, labels, behind, saved.tokens, saved.labels});
  embedding.forward(exec, saved.tokens, saved.embedded, work.embedding);
  join(exec, h, saved, work);
  layer_.forward(exec, documents, saved.input, nullptr, saved.output, nullptr,
                 dropout.at(layer_place), saved.layer, layer_work);
  norm_.template forward<Real>(exec, saved.output, saved.normed, saved.output_scale);
}

template <class Storage>
void MultiTokenPrediction<Storage>::join(const Exec& exec, const Tensor<const Storage, 2>& h,
                                         const Saved& saved, const Work& work) const {
  const int T = h.extent_int(0);
  embedding_norm_.template forward<Real>(exec, saved.embedded, work.part, saved.embedded_scale);
  Kokkos::parallel_for("multi_token_prediction::join", row_policy(exec, T),
                       Join<Storage>{saved.joined, work.part, 0});
  hidden_norm_.template forward<Storage>(exec, h, work.part, saved.hidden_scale);
  Kokkos::parallel_for("multi_token_prediction::join", row_policy(exec, T),
                       Join<Storage>{saved.joined, work.part, width_});
  fc_.template forward<Real>(exec, saved.joined, saved.input, work.low);
}

template <class Storage>
void MultiTokenPrediction<Storage>::step(
    const Exec& exec, const Documents& documents, const Tensor<const int, 1>& tokens,
    const Embedding<Storage>& embedding, const Tensor<const Storage, 2>& h,
    typename DecoderLayer<Storage>::State& state, Saved& saved, const Work& work,
    const typename DecoderLayer<Storage>::Work& layer_work) const {
  embedding.forward(exec, tokens, saved.embedded, work.embedding);
  join(exec, h, saved, work);
  if (tokens.extent_int(0) > few_rows) {
    layer_.forward(exec, documents, saved.input, &state, saved.output, &state, Dropout{},
                   saved.layer, layer_work);
  } else {
    layer_.step(exec, documents, saved.input, saved.output, state, saved.layer, layer_work);
  }
  norm_.template forward<Real>(exec, saved.output, saved.normed, saved.output_scale);
}

template <class Storage>
void MultiTokenPrediction<Storage>::backward(
    const Exec& exec, const Documents& documents, const Embedding<Storage>& embedding,
    const Tensor<const Storage, 2>& h, const BalanceGradient<Real>* balance, const Dropout& dropout,
    const Saved& saved, const Tensor<Storage, 2>& dh, const Work& work,
    const typename DecoderLayer<Storage>::Work& layer_work) const {
  const int T = h.extent_int(0);
  norm_.template backward<Real>(exec, work.dnormed, saved.output, saved.output_scale, work.gradient,
                                Write::replace, work.norm);
  layer_.backward(exec, documents, saved.input, work.gradient, balance, dropout.at(layer_place),
                  saved.layer, layer_work);
  branch_gradient<Storage>(exec, work.gradient, work.part, Dropout{});
  fc_.backward_weight(exec, work.part, saved.joined, work.low);
  fc_.backward_input(exec, work.part, work.djoined, work.low);
  Kokkos::parallel_for("multi_token_prediction::split", row_policy(exec, T),
                       Split<Storage>{work.djoined, work.part, width_});
  hidden_norm_.template backward<Storage>(exec, work.part, h, saved.hidden_scale, dh, Write::add,
                                          work.norm);
  Kokkos::parallel_for("multi_token_prediction::split", row_policy(exec, T),
                       Split<Storage>{work.djoined, work.part, 0});
  embedding_norm_.template backward<Real>(exec, work.part, saved.embedded, saved.embedded_scale,
                                          work.gradient, Write::replace, work.norm);
  embedding.backward(exec, saved.tokens, work.gradient, work.embedding);
}

template class MultiTokenPrediction<bf16>;
template class MultiTokenPrediction<float>;
template class MultiTokenPrediction<double>;

}  // namespace qnext
