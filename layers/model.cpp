// SPDX-License-Identifier: Apache-2.0
#include "layers/model.hpp"

#include "core/phase.hpp"
#include "core/require.hpp"

#include <algorithm>
#include <string>
#include <utility>

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
Model<Storage>::Model(const ModelConfig& config, const ProcessGrid& grid, ParameterTable& table,
                      std::vector<Chunk> chunks)
    : config_(config),
      grid_(grid),
      chunks_(std::move(chunks)),
      layers_(config.layers()),
      balance_(config.balance, balanced_layers(config), config.layer.experts.experts,
               config.layer.experts.experts_per_token, table, grid, watched_layers(config)) {
  table.begin_adapters(config.adapters);
  if (chunks_.empty()) {
    chunks_ = {{0, 1, 0, config.layers()}};
  }
  const std::string embedding = "model.embed_tokens.weight";
  const bool wanted_behind = config.tied_head || config.mtp_modules > 0;
  using Copies = typename Embedding<Storage>::Copies;
  for (const Chunk& chunk : chunks_) {
    table.begin_chunk(chunk.place);
    Rows& rows = rows_.emplace_back();
    rows.push_back(table.rows().size());
    if (chunk.first() || (chunk.last() && wanted_behind)) {
      const Copies copies = chunk.chunks == 1 || !wanted_behind ? Copies::one
                            : chunk.first()                     ? Copies::first_of_two
                                                                : Copies::last_of_two;
      embedding_ = std::make_unique<Embedding<Storage>>(
          table, embedding, config.vocabulary, config.width, config.init_deviation, grid, copies);
    }
    for (int i = chunk.begin; i < chunk.end; ++i) {
      rows.push_back(table.rows().size());
      layers_[i] = std::make_unique<Layer>(config.layer, config.mixers[i], config.mlps[i], grid,
                                           table, layer_name(i));
    }
    rows.push_back(table.rows().size());
    if (chunk.last()) {
      norm_ = std::make_unique<RmsNorm<Storage>>(table, "model.norm.weight", config.width,
                                                 config.norm_epsilon, grid);
      head_ = std::make_unique<HeadLoss<Storage>>(table, "lm_head.weight", config.vocabulary,
                                                  config.width, config.init_deviation,
                                                  config.tied_head ? embedding : "", grid);
      if (config.mtp_modules > 0) {
        mtp_ = std::make_unique<MultiTokenPrediction<Storage>>(config.layer, config.init_deviation,
                                                               grid, table);
      }
    }
    rows.push_back(table.rows().size());
  }
}

template <class Storage>
const typename Model<Storage>::Rows& Model<Storage>::rows_of(const Chunk& chunk) const {
  const auto same = [&](const Chunk& each) { return each.place == chunk.place; };
  return rows_[std::find_if(chunks_.begin(), chunks_.end(), same) - chunks_.begin()];
}

template <class Storage>
std::vector<std::vector<std::vector<std::size_t>>> Model<Storage>::backward_pieces() const {
  std::vector<std::vector<std::vector<std::size_t>>> chunks;
  for (const Chunk& chunk : chunks_) {
    const Rows& rows = rows_of(chunk);
    auto& pieces = chunks.emplace_back();
    const auto add = [&](std::size_t begin, std::size_t end) {
      for (std::size_t row = begin; row < end; ++row) {
        pieces.back().push_back(row);
      }
    };
    if (chunk.last()) {
      pieces.emplace_back();
      add(rows[chunk.layers() + 1], rows.back());
      add(rows[0], mtp_ ? rows[1] : rows[0]);  // which embeds the next token
    }
    for (int j = chunk.layers() - 1; j >= 0; --j) {
      pieces.emplace_back();
      add(rows[j + 1], rows[j + 2]);
    }
    pieces.emplace_back();
    add(rows[0], rows[1]);
  }
  return chunks;
}

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
  return balance_.gradient(saved.balance, index - saved.balance.first, scale);
}

template <class Storage>
typename Model<Storage>::Saved Model<Storage>::reserve_saved(Arena& arena,
                                                             const MicrobatchShape& shape,
                                                             int chunk) const {
  Saved saved = reserve_kept(arena, shape, chunk);
  reserve_recomputed(arena, shape, saved);
  return saved;
}

template <class Storage>
typename Model<Storage>::Saved Model<Storage>::reserve_kept(Arena& arena,
                                                            const MicrobatchShape& shape,
                                                            int chunk) const {
  Saved saved;
  saved.chunk = chunks_[chunk];
  const int begin = saved.chunk.begin, end = saved.chunk.end, T = split_of(shape).rows();
  for (int i = begin; i <= end; ++i) {
    saved.hidden.push_back(arena.reserve<Real, 2>("hidden", T, config_.width));
  }
  saved.layers.resize(saved.chunk.layers());
  for (int i = begin; i < end; ++i) {
    auto& layer = saved.layers[i - begin];
    if (config_.recompute == Recompute::none) {
      layer.mixer = layers_[i]->reserve_mixer(arena, shape);
    }
    if (config_.recompute != Recompute::block) {
      layer.mid = arena.reserve<Real, 2>("mid", T, config_.width);
      layer.mlp = layers_[i]->reserve_mlp(arena, shape);
    }
  }
  int first = 0, last = 0;  // routers in front of the chunk, and with it
  for (int i = 0; i < end; ++i) {
    last += balance_index(i) >= 0;
    first += i < begin && balance_index(i) >= 0;
  }
  if (saved.chunk.last()) {
    saved.scale = arena.reserve<Real, 1>("final_norm_scale", T);
    saved.normed = arena.reserve<Storage, 2>("final_norm", T, config_.width);
    if (mtp_) {
      const Arena::Room room(arena, "mtp");
      saved.mtp = mtp_->reserve_saved(arena, shape);
    }
    last = balanced_layers(config_) + watched_layers(config_);
  }
  // Statistics of the routers outlive what is computed again.
  saved.balance = balance_.reserve_saved(arena, shape, first, last - first);
  return saved;
}

template <class Storage>
void Model<Storage>::reserve_recomputed(Arena& arena, const MicrobatchShape& shape,
                                        Saved& saved) const {
  const int begin = saved.chunk.begin, end = saved.chunk.end, T = split_of(shape).rows();
  if (config_.recompute != Recompute::none) {
    Arena::Overlay shared(arena);
    for (int i = begin; i < end; ++i) {
      shared.add([&] {
        auto& layer = saved.layers[i - begin];
        layer.mixer = layers_[i]->reserve_mixer(arena, shape);
        if (config_.recompute == Recompute::block) {
          layer.mid = arena.reserve<Real, 2>("mid", T, config_.width);
          layer.mlp = layers_[i]->reserve_mlp(arena, shape);
        }
      });
    }
  }
  for (int i = begin; i < end; ++i) {
    if (balance_index(i) >= 0) {
      saved.layers[i - begin].mlp.experts.statistics =
          saved.balance.mine[balance_index(i) - saved.balance.first];
    }
  }
  if (saved.chunk.last() && mtp_) {
    saved.mtp.layer.mlp.experts.statistics = saved.balance.mine.back();
  }
}

template <class Storage>
typename Model<Storage>::Work Model<Storage>::reserve_work(Arena& arena,
                                                           const MicrobatchShape& shape) const {
  const Arena::Room room(arena, "work");
  const int T = split_of(shape).rows();
  Work work;
  work.gradient = arena.reserve<Real, 2>("gradient", T, config_.width);
  if (norm_) {
    work.dnormed = arena.reserve<Storage, 2>("dnormed", T, config_.width);
    work.norm = norm_->reserve_work(arena, T);
  }
  work.layers.resize(layers_.size());
  if (mtp_) {
    work.mtp = mtp_->reserve_work(arena, shape);
  }
  // Embedding, layers and head run one after the other.
  Arena::Overlay parts(arena);
  if (head_) {
    parts.add([&] { work.head = head_->reserve_work(arena, shape); });
  }
  if (embedding_) {
    parts.add([&] { work.embedding = embedding_->reserve_work(arena, shape); });
    work.mtp.embedding = work.embedding;
  }
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (layers_[i]) {
      parts.add([&] {
        if (config_.recompute == Recompute::block) {
          work.recomputed = arena.reserve<Real, 2>("recomputed", T, config_.width);
        }
        work.layers[i] = layers_[i]->reserve_work(arena, shape);
      });
    }
  }
  if (mtp_) {
    parts.add([&] { work.mtp_layer = mtp_->layer().reserve_work(arena, shape); });
  }
  return work;
}

template <class Storage>
typename Model<Storage>::State Model<Storage>::reserve_state(Arena& arena, int documents,
                                                             int capacity, int kept) const {
  const Arena::Room room(arena, "state");
  State state;
  for (const auto& layer : layers_) {
    state.layers.push_back(layer ? layer->reserve_state(arena, documents, capacity, kept)
                                 : typename Layer::State{});
  }
  if (mtp_) {
    state.mtp = mtp_->layer().reserve_state(arena, documents, capacity);
  }
  return state;
}

template <class Storage>
typename Model<Storage>::Draft Model<Storage>::reserve_draft(Arena& arena,
                                                             const MicrobatchShape& shape) const {
  const Arena::Room room(arena, "draft");
  Draft draft;
  draft.saved = mtp_->reserve_saved(arena, shape);
  draft.work = mtp_->reserve_work(arena, shape);
  draft.work.embedding = embedding_->reserve_work(arena, shape);
  draft.layer = mtp_->layer().reserve_work(arena, shape);
  draft.head = head_->reserve_work(arena, shape);
  return draft;
}

template <class Storage>
void Model<Storage>::clear(const Exec& exec, const State& state) const {
  for (const auto& layer : state.layers) {
    Layer::clear(exec, layer);
  }
}

template <class Storage>
void Model<Storage>::forward(const Exec& exec, const Microbatch& batch, const Dropout& of_batch,
                             Saved& saved, const Work& work, const State* initial, State* final,
                             const AtRow& reads_to) const {
  const Dropout dropout = on_rows(of_batch, batch);
  const Chunk& chunk = saved.chunk;
  const Rows& rows = rows_of(chunk);
  const auto read = [&](std::size_t row) {
    if (reads_to) {
      reads_to(row);
    }
  };
  if (chunk.first()) {
    read(rows[1]);
    embedding_->forward(exec, batch.tokens, saved.hidden.front(), work.embedding);
  }
  for (int i = chunk.begin; i < chunk.end; ++i) {
    const int j = i - chunk.begin;
    read(rows[j + 2]);
    layers_[i]->forward(exec, batch.documents, saved.hidden[j],
                        initial ? &initial->layers[i] : nullptr, saved.hidden[j + 1],
                        final ? &final->layers[i] : nullptr, dropout.at(i), saved.layers[j],
                        work.layers[i]);
  }
  read(rows.back());
  if (chunk.last()) {
    norm_->template forward<Real>(exec, saved.hidden.back(), saved.normed, saved.scale);
    if (mtp_ && batch.labels.data() != nullptr) {
      mtp_->forward(exec, batch.documents, batch.tokens, batch.labels, batch.behind, *embedding_,
                    saved.normed, dropout, saved.mtp, work.mtp, work.mtp_layer);
    }
  }
  balance_.share_out(exec, saved.balance, !chunk.first());
}

template <class Storage>
void Model<Storage>::evaluate(const Exec& exec, const Microbatch& batch, Saved& saved,
                              const Work& work, const LossSums& sums) const {
  const Phase phase("evaluate");
  head_->forward(exec, saved.normed, batch.labels, sums.cross_entropy, work.head);
  if (mtp_) {
    head_->forward(exec, saved.mtp.normed, saved.mtp.labels, sums.mtp, work.head);
  }
  balance_.forward(exec, saved.balance, false, sums.balance, sums.router_z);
}

// From the losses to the gradient of the output of the last layer.
template <class Storage>
void Model<Storage>::head_backward(const Exec& exec, const Microbatch& batch,
                                   const LossScale& scale, const Dropout& dropout, Saved& saved,
                                   const Work& work, const LossSums& sums) const {
  head_->forward_backward(exec, saved.normed, batch.labels, scale.cross_entropy, sums.cross_entropy,
                          work.dnormed, Write::replace, work.head);
  if (mtp_) {
    head_->forward_backward(exec, saved.mtp.normed, saved.mtp.labels, scale.mtp, sums.mtp,
                            work.mtp.dnormed, Write::replace, work.head);
    const auto balance = balance_gradient(saved, config_.layers(), scale.balance);
    mtp_->backward(exec, batch.documents, *embedding_, saved.normed, balance ? &*balance : nullptr,
                   dropout, saved.mtp, work.dnormed, work.mtp, work.mtp_layer);
  }
  norm_->template backward<Real>(exec, work.dnormed, saved.hidden.back(), saved.scale,
                                 work.gradient, Write::replace, work.norm);
}

template <class Storage>
void Model<Storage>::layer_backward(const Exec& exec, const Documents& documents,
                                    const LossScale& scale, const Dropout& dropout, int i,
                                    Saved& saved, const Work& work) const {
  const Layer& layer = *layers_[i];
  const int j = i - saved.chunk.begin;
  if (config_.recompute == Recompute::mixer) {
    layer.recompute_mixer(exec, documents, saved.hidden[j], saved.layers[j].mixer, work.layers[i]);
  } else if (config_.recompute == Recompute::block) {
    layer.forward(exec, documents, saved.hidden[j], nullptr, work.recomputed, nullptr,
                  dropout.at(i), saved.layers[j], work.layers[i]);
  }
  const auto balance = balance_gradient(saved, i, scale.balance);
  layer.backward(exec, documents, saved.hidden[j], work.gradient, balance ? &*balance : nullptr,
                 dropout.at(i), saved.layers[j], work.layers[i]);
}

template <class Storage>
void Model<Storage>::backward(const Exec& exec, const Microbatch& batch, const LossScale& scale,
                              const Dropout& of_batch, Saved& saved, const Work& work,
                              const LossSums& sums, const AtRow& adds_before) const {
  const Dropout dropout = on_rows(of_batch, batch);
  const Chunk& chunk = saved.chunk;
  const Rows& rows = rows_of(chunk);
  const auto done = [&](std::size_t row) {
    if (adds_before) {
      adds_before(row);
    }
  };
  balance_.forward(exec, saved.balance, true, sums.balance, sums.router_z);
  if (chunk.last()) {
    head_backward(exec, batch, scale, dropout, saved, work, sums);
    done(rows[chunk.layers() + 1]);
  }
  for (int i = chunk.end - 1; i >= chunk.begin; --i) {
    layer_backward(exec, batch.documents, scale, dropout, i, saved, work);
    done(rows[i - chunk.begin + 1]);
  }
  if (chunk.first()) {
    embedding_->backward(exec, batch.tokens, work.gradient, work.embedding);
  }
  done(rows.front());
}

template <class Storage>
void Model<Storage>::step(const Exec& exec, const Microbatch& batch, State& state, Saved& saved,
                          const Work& work, Keep keep) const {
  const Phase phase("step");
  require(grid_.degrees.context == 1, "decoding is not divided over context ranks, which are " +
                                          std::to_string(grid_.degrees.context));
  const Chunk& chunk = saved.chunk;
  if (chunk.first()) {
    embedding_->forward(exec, batch.tokens, saved.hidden.front(), work.embedding);
  }
  for (int i = chunk.begin; i < chunk.end; ++i) {
    const int j = i - chunk.begin;
    layers_[i]->step(exec, batch.documents, saved.hidden[j], saved.hidden[j + 1], state.layers[i],
                     saved.layers[j], work.layers[i], keep);
  }
  if (chunk.last()) {
    norm_->template forward<Real>(exec, saved.hidden.back(), saved.normed, saved.scale);
  }
}

template <class Storage>
void Model<Storage>::draft(const Exec& exec, const Microbatch& batch,
                           const Tensor<const Storage, 2>& h, State& state, Draft& draft) const {
  const Phase phase("draft");
  mtp_->step(exec, batch.documents, batch.tokens, *embedding_, h, state.mtp, draft.saved,
             draft.work, draft.layer);
}

template <class Storage>
void Model<Storage>::logits(const Exec& exec, const Tensor<const Storage, 2>& normed,
                            const Tensor<Real, 2>& logits, const Tensor<Storage, 2>& low) const {
  head_->logits(exec, normed, logits, low);
}

template class Model<bf16>;
template class Model<float>;
template class Model<double>;

}  // namespace qnext
