// SPDX-License-Identifier: Apache-2.0
#include "layers/model.hpp"

#include "core/phase.hpp"
#include "core/require.hpp"

#include <algorithm>
#include <string>

namespace qnext {
namespace {

std::string layer_name(int i) {
  return "model.layers." + std::to_string(i);
}

// The layers whose routers the balance losses see: those with experts and, except in the form of
// transformers, which knows no MTP, the layer of the MTP module.
bool balances_mtp(const ModelConfig& config) {
  return config.mtp_modules > 0 && config.balance.form != BalanceLossConfig::Form::huggingface;
}

int balanced_layers(const ModelConfig& config) {
  return static_cast<int>(std::count(config.mlps.begin(), config.mlps.end(), Mlp::experts)) +
         (balances_mtp(config) ? 1 : 0);
}

// The MTP module's layer where the balance losses leave it out: its load counts all the same.
int watched_layers(const ModelConfig& config) {
  return config.mtp_modules > 0 && !balances_mtp(config) ? 1 : 0;
}

}  // namespace

LossSums LossSums::make() {
  return {Tensor<double, 0>("cross entropy sum"), Tensor<double, 0>("mtp loss sum"),
          Tensor<double, 0>("balance loss sum"), Tensor<double, 0>("router z loss sum")};
}

void LossSums::clear(const Exec& exec) const {
  for (const auto& sum : {cross_entropy, mtp, balance, router_z}) {
    Kokkos::deep_copy(exec, sum, 0.0);
  }
}

template <class Storage>
Model<Storage>::Model(const ModelConfig& config, const ProcessGrid& grid, ParameterTable& table)
    : config_(config),
      grid_(grid),
      embedding_(table, "model.embed_tokens.weight", config.vocabulary, config.width,
                 config.init_deviation, grid),
      layers_([&] {
        std::vector<std::unique_ptr<Layer>> layers;
        for (int i = 0; i < config.layers(); ++i) {
          layers.push_back(std::make_unique<Layer>(config.layer, config.mixers[i], config.mlps[i],
                                                   grid, table, layer_name(i)));
        }
        return layers;
      }()),
      norm_(table, "model.norm.weight", config.width, config.norm_epsilon, grid),
      head_(table, "lm_head.weight", config.vocabulary, config.width, config.init_deviation,
            config.tied_head ? "model.embed_tokens.weight" : "", grid),
      mtp_(config.mtp_modules == 0 ? nullptr
                                   : std::make_unique<MultiTokenPrediction<Storage>>(
                                         config.layer, config.init_deviation, grid, table)),
      balance_(config.balance, balanced_layers(config), config.layer.experts.experts,
               config.layer.experts.experts_per_token, grid, watched_layers(config)) {}

template <class Storage>
Dropout Model<Storage>::on_rows(const Dropout& dropout, const Microbatch& batch) const {
  const MicrobatchShape shape{batch.tokens.extent_int(0), 0, batch.documents.sequences};
  TokenRows rows = split_of(shape).token_rows();
  rows.first += grid_.place.context * rows.sequence;
  rows.sequence *= grid_.degrees.context;
  return {dropout.probability, dropout.key, rows};
}

template <class Storage>
int Model<Storage>::balance_index(int layer) const {
  if (layer == config_.layers()) {
    return balances_mtp(config_) ? balanced_layers(config_) - 1 : -1;
  }
  const auto begin = config_.mlps.begin();
  return config_.mlps[layer] == Mlp::experts
             ? static_cast<int>(std::count(begin, begin + layer, Mlp::experts))
             : -1;
}

template <class Storage>
std::optional<BalanceGradient<Accum<Storage>>> Model<Storage>::balance_gradient(
    const Saved& saved, int layer, double scale) const {
  const int index = balance_index(layer);
  if (balance_.empty() || index < 0) {
    return std::nullopt;
  }
  return balance_.gradient(saved.balance, index, scale);
}

template <class Storage>
typename Model<Storage>::Saved Model<Storage>::reserve_saved(Arena& arena,
                                                             const MicrobatchShape& shape) const {
  Saved saved;
  const int T = split_of(shape).rows();
  for (int i = 0; i <= config_.layers(); ++i) {
    saved.hidden.push_back(arena.reserve<Real, 2>("hidden", T, config_.width));
  }
  saved.layers.resize(layers_.size());
  const bool keep_mixer = config_.recompute == Recompute::none;
  const bool keep_rest = config_.recompute != Recompute::block;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (keep_mixer) {
      saved.layers[i].mixer = layers_[i]->reserve_mixer(arena, shape);
    }
    if (keep_rest) {
      saved.layers[i].mid = arena.reserve<Real, 2>("mid", T, config_.width);
      saved.layers[i].mlp = layers_[i]->reserve_mlp(arena, shape);
    }
  }
  if (!keep_mixer) {
    Arena::Overlay shared(arena);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      shared.add([&] {
        saved.layers[i].mixer = layers_[i]->reserve_mixer(arena, shape);
        if (!keep_rest) {
          saved.layers[i].mid = arena.reserve<Real, 2>("mid", T, config_.width);
          saved.layers[i].mlp = layers_[i]->reserve_mlp(arena, shape);
        }
      });
    }
  }
  saved.scale = arena.reserve<Real, 1>("final_norm_scale", T);
  saved.normed = arena.reserve<Storage, 2>("final_norm", T, config_.width);
  if (mtp_) {
    const Arena::Room room(arena, "mtp");
    saved.mtp = mtp_->reserve_saved(arena, shape);
  }
  // Statistics of the routers outlive what is computed again.
  saved.balance = balance_.reserve_saved(arena, shape);
  for (int i = 0; i < config_.layers(); ++i) {
    if (balance_index(i) >= 0) {
      saved.layers[i].mlp.experts.statistics = saved.balance.mine[balance_index(i)];
    }
  }
  if (mtp_) {
    saved.mtp.layer.mlp.experts.statistics = saved.balance.mine.back();
  }
  return saved;
}

template <class Storage>
typename Model<Storage>::Work Model<Storage>::reserve_work(Arena& arena,
                                                           const MicrobatchShape& shape) const {
  const Arena::Room room(arena, "work");
  const int T = split_of(shape).rows();
  Work work;
  work.dnormed = arena.reserve<Storage, 2>("dnormed", T, config_.width);
  work.gradient = arena.reserve<Real, 2>("gradient", T, config_.width);
  work.norm = norm_.reserve_work(arena, T);
  work.layers.resize(layers_.size());
  if (mtp_) {
    work.mtp = mtp_->reserve_work(arena, shape);
  }
  // Embedding, layers and head run one after the other.
  Arena::Overlay parts(arena);
  parts.add([&] { work.head = head_.reserve_work(arena, shape); });
  parts.add([&] { work.embedding = embedding_.reserve_work(arena, shape); });
  work.mtp.embedding = work.embedding;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    parts.add([&] {
      if (config_.recompute == Recompute::block) {
        work.recomputed = arena.reserve<Real, 2>("recomputed", T, config_.width);
      }
      work.layers[i] = layers_[i]->reserve_work(arena, shape);
    });
  }
  if (mtp_) {
    parts.add([&] { work.mtp_layer = mtp_->layer().reserve_work(arena, shape); });
  }
  return work;
}

template <class Storage>
typename Model<Storage>::State Model<Storage>::reserve_state(Arena& arena, int documents,
                                                             int capacity) const {
  const Arena::Room room(arena, "state");
  State state;
  for (const auto& layer : layers_) {
    state.layers.push_back(layer->reserve_state(arena, documents, capacity));
  }
  return state;
}

template <class Storage>
void Model<Storage>::clear(const Exec& exec, const State& state) const {
  for (const auto& layer : state.layers) {
    Layer::clear(exec, layer);
  }
}

template <class Storage>
void Model<Storage>::forward(const Exec& exec, const Microbatch& batch, const Dropout& of_batch,
                             Saved& saved, const Work& work, const State* initial,
                             State* final) const {
  const Dropout dropout = on_rows(of_batch, batch);
  embedding_.forward(exec, batch.tokens, saved.hidden[0], work.embedding);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    layers_[i]->forward(exec, batch.documents, saved.hidden[i],
                        initial ? &initial->layers[i] : nullptr, saved.hidden[i + 1],
                        final ? &final->layers[i] : nullptr, dropout.at(i), saved.layers[i],
                        work.layers[i]);
  }
  norm_.template forward<Real>(exec, saved.hidden.back(), saved.normed, saved.scale);
  if (mtp_ && batch.labels.data() != nullptr) {
    mtp_->forward(exec, batch.documents, batch.tokens, batch.labels, batch.behind, embedding_,
                  saved.normed, dropout, saved.mtp, work.mtp, work.mtp_layer);
  }
  balance_.sum_over_ranks(exec, saved.balance);
}

template <class Storage>
void Model<Storage>::evaluate(const Exec& exec, const Microbatch& batch, Saved& saved,
                              const Work& work, const LossSums& sums) const {
  const Phase phase("evaluate");
  head_.forward(exec, saved.normed, batch.labels, sums.cross_entropy, work.head);
  if (mtp_) {
    head_.forward(exec, saved.mtp.normed, saved.mtp.labels, sums.mtp, work.head);
  }
  balance_.forward(exec, saved.balance, false, sums.balance, sums.router_z);
}

template <class Storage>
void Model<Storage>::backward(const Exec& exec, const Microbatch& batch, const LossScale& scale,
                              const Dropout& of_batch, Saved& saved, const Work& work,
                              const LossSums& sums) const {
  const Documents& documents = batch.documents;
  const Dropout dropout = on_rows(of_batch, batch);
  balance_.forward(exec, saved.balance, true, sums.balance, sums.router_z);
  head_.forward_backward(exec, saved.normed, batch.labels, scale.cross_entropy, sums.cross_entropy,
                         work.dnormed, Write::replace, work.head);
  if (mtp_) {
    head_.forward_backward(exec, saved.mtp.normed, saved.mtp.labels, scale.mtp, sums.mtp,
                           work.mtp.dnormed, Write::replace, work.head);
    const auto balance = balance_gradient(saved, config_.layers(), scale.balance);
    mtp_->backward(exec, documents, embedding_, saved.normed, balance ? &*balance : nullptr,
                   dropout, saved.mtp, work.dnormed, work.mtp, work.mtp_layer);
  }
  norm_.template backward<Real>(exec, work.dnormed, saved.hidden.back(), saved.scale, work.gradient,
                                Write::replace, work.norm);
  for (int i = config_.layers() - 1; i >= 0; --i) {
    const Layer& layer = *layers_[i];
    if (config_.recompute == Recompute::mixer) {
      layer.recompute_mixer(exec, documents, saved.hidden[i], saved.layers[i].mixer,
                            work.layers[i]);
    } else if (config_.recompute == Recompute::block) {
      layer.forward(exec, documents, saved.hidden[i], nullptr, work.recomputed, nullptr,
                    dropout.at(i), saved.layers[i], work.layers[i]);
    }
    const auto balance = balance_gradient(saved, i, scale.balance);
    layer.backward(exec, documents, saved.hidden[i], work.gradient, balance ? &*balance : nullptr,
                   dropout.at(i), saved.layers[i], work.layers[i]);
  }
  embedding_.backward(exec, batch.tokens, work.gradient, work.embedding);
}

template <class Storage>
void Model<Storage>::step(const Exec& exec, const Microbatch& batch, State& state, Saved& saved,
                          const Work& work) const {
  const Phase phase("step");
  for (const auto& [kind, ranks] :
       {std::pair{"tensor", grid_.degrees.tensor}, std::pair{"context", grid_.degrees.context}}) {
    require(ranks == 1, std::string("decoding is not divided over ") + kind + " ranks, which are " +
                            std::to_string(ranks));
  }
  embedding_.forward(exec, batch.tokens, saved.hidden[0]);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    layers_[i]->step(exec, batch.documents, saved.hidden[i], saved.hidden[i + 1], state.layers[i],
                     saved.layers[i], work.layers[i]);
  }
  norm_.template forward<Real>(exec, saved.hidden.back(), saved.normed, saved.scale);
}

template <class Storage>
void Model<Storage>::logits(const Exec& exec, const Tensor<const Storage, 2>& normed,
                            const Tensor<Real, 2>& logits) const {
  head_.logits(exec, normed, logits);
}

template class Model<bf16>;
template class Model<float>;
template class Model<double>;

}  // namespace qnext
