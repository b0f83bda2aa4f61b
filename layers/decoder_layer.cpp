// SPDX-License-Identifier: Apache-2.0
#include "layers/decoder_layer.hpp"

#include <type_traits>

namespace qnext {
namespace {

// The two branches of a layer have masks of their own.
constexpr std::uint64_t mixer_place = 0;
constexpr std::uint64_t mlp_place = 1;

}  // namespace

template <class Storage>
DecoderLayer<Storage>::DecoderLayer(const DecoderLayerConfig& config, Mixer mixer, Mlp mlp,
                                    const ProcessGrid& grid, ParameterTable& table,
                                    const std::string& prefix)
    : width_(config.width),
      grid_(grid),
      input_norm_(table, prefix + ".input_layernorm.weight", config.width, config.norm_epsilon,
                  grid),
      delta_net_(mixer == Mixer::delta_net
                     ? std::make_unique<GatedDeltaNet<Storage>>(config.delta_net, grid, table,
                                                                prefix + ".linear_attn")
                     : nullptr),
      attention_(mixer == Mixer::attention
                     ? std::make_unique<GatedAttention<Storage>>(config.attention, grid, table,
                                                                 prefix + ".self_attn")
                     : nullptr),
      post_attention_norm_(table, prefix + ".post_attention_layernorm.weight", config.width,
                           config.norm_epsilon, grid),
      experts_(mlp == Mlp::experts ? std::make_unique<MixtureOfExperts<Storage>>(
                                         config.experts, grid, table, prefix + ".mlp")
                                   : nullptr),
      dense_(mlp == Mlp::dense
                 ? std::make_unique<DenseMlp<Storage>>(config.dense, grid, table, prefix + ".mlp")
                 : nullptr) {}

template <class Storage>
int DecoderLayer<Storage>::rows_of(const MicrobatchShape& shape) const {
  return RowSplit(grid_, shape.tokens, shape.sequences).rows();
}

template <class Storage>
typename DecoderLayer<Storage>::MixerSaved DecoderLayer<Storage>::reserve_mixer(
    Arena& arena, const MicrobatchShape& shape) const {
  const Arena::Room room(arena, delta_net_ ? "delta_net" : "attention");
  MixerSaved saved;
  saved.scale = arena.reserve<Real, 1>("norm_scale", rows_of(shape));
  saved.normed = arena.reserve<Storage, 2>("normed", rows_of(shape), width_);
  if (delta_net_) {
    saved.delta_net = delta_net_->reserve_saved(arena, shape);
  } else {
    saved.attention = attention_->reserve_saved(arena, shape);
  }
  return saved;
}

template <class Storage>
typename DecoderLayer<Storage>::MlpSaved DecoderLayer<Storage>::reserve_mlp(
    Arena& arena, const MicrobatchShape& shape) const {
  const Arena::Room room(arena, experts_ ? "experts" : "dense");
  MlpSaved saved;
  saved.scale = arena.reserve<Real, 1>("norm_scale", rows_of(shape));
  saved.normed = arena.reserve<Storage, 2>("normed", rows_of(shape), width_);
  if (experts_) {
    saved.experts = experts_->reserve_saved(arena, shape);
  } else {
    saved.dense = dense_->reserve_saved(arena, shape);
  }
  return saved;
}

template <class Storage>
typename DecoderLayer<Storage>::Saved DecoderLayer<Storage>::reserve_saved(
    Arena& arena, const MicrobatchShape& shape) const {
  Saved saved;
  saved.mixer = reserve_mixer(arena, shape);
  saved.mid = arena.reserve<Real, 2>("mid", rows_of(shape), width_);
  saved.mlp = reserve_mlp(arena, shape);
  return saved;
}

template <class Storage>
typename DecoderLayer<Storage>::Work DecoderLayer<Storage>::reserve_work(
    Arena& arena, const MicrobatchShape& shape) const {
  Work work;
  work.branch = arena.reserve<Storage, 2>("branch", rows_of(shape), width_);
  work.dbranch = arena.reserve<Storage, 2>("dbranch", rows_of(shape), width_);
  work.norm = input_norm_.reserve_work(arena, rows_of(shape));
  // The halves of a layer run one after the other and take the same memory.
  Arena::Overlay halves(arena);
  halves.add([&] {
    if (delta_net_) {
      work.delta_net = delta_net_->reserve_work(arena, shape);
    } else {
      work.attention = attention_->reserve_work(arena, shape);
    }
  });
  halves.add([&] {
    if (experts_) {
      work.experts = experts_->reserve_work(arena, shape);
    } else {
      work.dense = dense_->reserve_work(arena, shape);
    }
  });
  return work;
}

template <class Storage>
typename DecoderLayer<Storage>::State DecoderLayer<Storage>::reserve_state(Arena& arena,
                                                                           int documents,
                                                                           int capacity,
                                                                           int kept) const {
  State state;
  if (delta_net_) {
    state.delta_net = delta_net_->reserve_state(arena, documents * kept);
  } else {
    state.attention = attention_->reserve_state(arena, documents, capacity);
  }
  return state;
}

template <class Storage>
void DecoderLayer<Storage>::clear(const Exec& exec, const State& state) {
  if (state.delta_net.memory.data() != nullptr) {
    Kokkos::deep_copy(exec, state.delta_net.memory, Real(0));
    Kokkos::deep_copy(exec, state.delta_net.conv_tail, Storage(0.0f));
  }
}

template <class Storage>
void DecoderLayer<Storage>::mixer_forward(const Exec& exec, const Documents& documents,
                                          const Tensor<const Real, 2>& x, const State* initial,
                                          State* final, MixerSaved& saved, const Work& work) const {
  input_norm_.template forward<Real>(exec, x, saved.normed, saved.scale);
  if (delta_net_) {
    delta_net_->forward(exec, documents, saved.normed, initial ? &initial->delta_net : nullptr,
                        work.branch, final ? &final->delta_net : nullptr, saved.delta_net,
                        work.delta_net);
  } else {
    attention_->forward(exec, documents, saved.normed, initial ? &initial->attention : nullptr,
                        work.branch, final ? &final->attention : nullptr, saved.attention,
                        work.attention);
  }
}

template <class Storage>
void DecoderLayer<Storage>::forward(const Exec& exec, const Documents& documents,
                                    const Tensor<const Real, 2>& x, const State* initial,
                                    const Tensor<Real, 2>& y, State* final, const Dropout& dropout,
                                    Saved& saved, const Work& work) const {
  mixer_forward(exec, documents, x, initial, final, saved.mixer, work);
  add_branch<Storage>(exec, x, work.branch, saved.mid, dropout.at(mixer_place));
  post_attention_norm_.template forward<Real>(exec, saved.mid, saved.mlp.normed, saved.mlp.scale);
  if (experts_) {
    experts_->forward(exec, documents, saved.mlp.normed, work.branch, saved.mlp.experts,
                      work.experts);
  } else {
    dense_->forward(exec, saved.mlp.normed, work.branch, saved.mlp.dense, work.dense);
  }
  add_branch<Storage>(exec, saved.mid, work.branch, y, dropout.at(mlp_place));
}

template <class Storage>
void DecoderLayer<Storage>::recompute_mixer(const Exec& exec, const Documents& documents,
                                            const Tensor<const Real, 2>& x, MixerSaved& saved,
                                            const Work& work) const {
  mixer_forward(exec, documents, x, nullptr, nullptr, saved, work);
}

template <class Storage>
void DecoderLayer<Storage>::backward(const Exec& exec, const Documents& documents,
                                     const Tensor<const Real, 2>& x,
                                     const Tensor<Real, 2>& gradient,
                                     const BalanceGradient<Real>* balance, const Dropout& dropout,
                                     const Saved& saved, const Work& work) const {
  const auto through = [&](std::uint64_t place) -> Tensor<const Storage, 2> {
    if constexpr (std::is_same_v<Storage, Real>) {
      if (dropout.probability == 0.0) {
        return gradient;
      }
    }
    branch_gradient<Storage>(exec, gradient, work.dbranch, dropout.at(place));
    return work.dbranch;
  };
  const auto dmlp = through(mlp_place);
  if (experts_) {
    experts_->backward(exec, documents, dmlp, saved.mlp.experts, balance, work.branch,
                       work.experts);
  } else {
    dense_->backward(exec, dmlp, saved.mlp.dense, work.branch, work.dense);
  }
  post_attention_norm_.template backward<Real>(exec, work.branch, saved.mid, saved.mlp.scale,
                                               gradient, Write::add, work.norm);
  const auto dmixer = through(mixer_place);
  if (delta_net_) {
    delta_net_->backward(exec, documents, dmixer, nullptr, saved.mixer.delta_net, work.branch,
                         nullptr, work.delta_net);
  } else {
    attention_->backward(exec, documents, dmixer, nullptr, saved.mixer.attention, work.branch,
                         nullptr, work.attention);
  }
  input_norm_.template backward<Real>(exec, work.branch, x, saved.mixer.scale, gradient, Write::add,
                                      work.norm);
}

template <class Storage>
void DecoderLayer<Storage>::step(const Exec& exec, const Documents& documents,
                                 const Tensor<const Real, 2>& x, const Tensor<Real, 2>& y,
                                 State& state, Saved& saved, const Work& work, Keep keep) const {
  if (documents.count == 0) {
    if (experts_) {
      experts_->step(exec, saved.mlp.normed, work.branch, saved.mlp.experts, work.experts);
    }
    return;
  }
  input_norm_.template forward<Real>(exec, x, saved.mixer.normed, saved.mixer.scale);
  if (delta_net_) {
    delta_net_->step(exec, documents, saved.mixer.normed, state.delta_net, work.branch,
                     saved.mixer.delta_net, work.delta_net, keep);
  } else {
    attention_->step(exec, documents, saved.mixer.normed, state.attention, work.branch,
                     saved.mixer.attention, work.attention);
  }
  add_branch<Storage>(exec, x, work.branch, saved.mid, Dropout{});
  post_attention_norm_.template forward<Real>(exec, saved.mid, saved.mlp.normed, saved.mlp.scale);
  if (experts_) {
    experts_->step(exec, saved.mlp.normed, work.branch, saved.mlp.experts, work.experts);
  } else {
    dense_->forward(exec, saved.mlp.normed, work.branch, saved.mlp.dense, work.dense);
  }
  add_branch<Storage>(exec, saved.mid, work.branch, y, Dropout{});
}

template class DecoderLayer<bf16>;
template class DecoderLayer<float>;
template class DecoderLayer<double>;

}  // namespace qnext
