// SPDX-License-Identifier: Apache-2.0
#include "layers/gated_attention.hpp"

#include "core/require.hpp"

namespace qnext {
namespace {

// The same memory with the heads as one extent.
template <class T>
Tensor<T, 2> rows_of(const Tensor<T, 3>& heads) {
  return Tensor<T, 2>(heads.data(), heads.extent(0), heads.extent(1) * heads.extent(2));
}

int local_heads(int heads, const ProcessGrid& grid) {
  require(heads % grid.degrees.tensor == 0, "attention: heads = " + std::to_string(heads) +
                                                ", wanted a multiple of the tensor degree " +
                                                std::to_string(grid.degrees.tensor));
  return heads / grid.degrees.tensor;
}

// How many tensor ranks hold the same key/value head.
int holders_of(int key_value_heads, const ProcessGrid& grid) {
  const int ranks = grid.degrees.tensor;
  require(key_value_heads % ranks == 0 || ranks % key_value_heads == 0,
          "attention: key_value_heads = " + std::to_string(key_value_heads) +
              ", wanted a multiple or a divisor of the tensor degree " + std::to_string(ranks));
  return ranks > key_value_heads ? ranks / key_value_heads : 1;
}

// The rows of keys or values. Where there are fewer heads than ranks, neighbours hold the same head
// and each sees the gradient that comes from its own queries.
Parameter key_value_weight(const std::string& name, const GatedAttentionConfig& config,
                           const ProcessGrid& grid) {
  const int holders = holders_of(config.key_value_heads, grid);
  Parameter parameter{
      .name = name,
      .shard = grid.tensor_part({config.key_value_heads * config.head_width, config.model_width}, 0,
                                holders),
      .init = Init::normal(config.init_deviation)};
  return holders == 1 ? parameter : grid.replicated(parameter, holders);
}

template <class Real>
void add_head_norm(ParameterTable& table, const std::string& name, int width,
                   const ProcessGrid& grid, Weight<Real, 1>& weight) {
  table.add(grid.replicated({.name = name,
                             .shard = Shard::whole({width}),
                             .init = Init::zeros(),
                             .decay = Decay::no,
                             .zero_centred_norm = true}),
            weight);
}

}  // namespace

template <class Storage>
GatedAttention<Storage>::GatedAttention(const GatedAttentionConfig& config, const ProcessGrid& grid,
                                        ParameterTable& table, const std::string& prefix)
    : config_(config),
      grid_(grid),
      H_(local_heads(config.heads, grid)),
      G_(config.key_value_heads * holders_of(config.key_value_heads, grid) / grid.degrees.tensor),
      q_proj_(table, grid,
              {.name = prefix + ".q_proj.weight",
               .shard = grid.tensor_part({config.heads * query_width(), config.model_width}, 0),
               .init = Init::normal(config.init_deviation)}),
      k_proj_(table, grid, key_value_weight(prefix + ".k_proj.weight", config, grid)),
      v_proj_(table, grid, key_value_weight(prefix + ".v_proj.weight", config, grid)),
      o_proj_(table, grid,
              {.name = prefix + ".o_proj.weight",
               .shard = grid.tensor_part({config.model_width, config.heads * config.head_width}, 1),
               .init = Init::normal(config.init_deviation)}),
      ring_(grid, {H_, G_, config.head_width}),
      adapters_(table.adapters()) {
  require(config.heads % config.key_value_heads == 0,
          "attention: heads = " + std::to_string(config.heads) +
              ", wanted a multiple of key_value_heads = " + std::to_string(config.key_value_heads));
  require(config.rotary_width % 2 == 0 && config.rotary_width >= 0 &&
              config.rotary_width <= config.head_width,
          "attention: rotary_width = " + std::to_string(config.rotary_width) +
              ", wanted an even number up to head_width = " + std::to_string(config.head_width));
  add_head_norm<Real>(table, prefix + ".q_norm.weight", config.head_width, grid, q_norm_);
  add_head_norm<Real>(table, prefix + ".k_norm.weight", config.head_width, grid, k_norm_);
}

template <class Storage>
typename GatedAttention<Storage>::Saved GatedAttention<Storage>::reserve_saved(
    Arena& arena, const MicrobatchShape& shape) const {
  const int T = shape.tokens, W = config_.head_width;
  Saved saved;
  saved.query = arena.reserve<Storage, 3>("query", T, H_, query_width());
  saved.key = arena.reserve<Storage, 3>("key", T, G_, W);
  saved.value = arena.reserve<Storage, 3>("value", T, G_, W);
  saved.attended = arena.reserve<Storage, 3>("attended", T, H_, W);
  saved.log_sum_exp = arena.reserve<Real, 2>("log_sum_exp", T, H_);
  return saved;
}

template <class Storage>
typename GatedAttention<Storage>::Work GatedAttention<Storage>::reserve_work(
    Arena& arena, const MicrobatchShape& shape) const {
  const int T = shape.tokens, W = config_.head_width;
  Work work;
  work.rows = SharedRows<Storage>::reserve(arena, grid_, shape, config_.model_width);
  work.rotation = arena.reserve<Real, 2>("rotation", T, config_.rotary_width);
  work.q = arena.reserve<Storage, 3>("q", T, H_, W);
  work.k = arena.reserve<Storage, 3>("k", T, G_, W);
  work.dattended = arena.reserve<Storage, 3>("dattended", T, H_, W);
  work.dquery = arena.reserve<Storage, 3>("dquery", T, H_, query_width());
  work.dkey = arena.reserve<Storage, 3>("dkey", T, G_, W);
  work.dvalue = arena.reserve<Storage, 3>("dvalue", T, G_, W);
  work.delta = arena.reserve<Real, 2>("delta", T, H_);
  work.partial = arena.reserve<Real, 2>("head_norm_partial", head_norm_blocks(T), W);
  work.attention =
      reserve_attention_work<Storage>(arena, {H_, G_, W}, AttentionTiles::usual(), shape);
  work.ring = ring_.reserve_work(arena, shape);
  work.low = Adapter<Storage>::reserve_low(arena, adapters_, T);
  return work;
}

template <class Storage>
typename GatedAttention<Storage>::State GatedAttention<Storage>::reserve_state(Arena& arena,
                                                                               int documents,
                                                                               int capacity) const {
  const int W = config_.head_width;
  return {arena.reserve<Storage, 4>("cached_keys", documents, capacity, G_, W),
          arena.reserve<Storage, 4>("cached_values", documents, capacity, G_, W)};
}

template <class Storage>
HeadNorm<Storage> GatedAttention<Storage>::query_norm(const Saved& saved, const Work& work) const {
  return {saved.query, q_norm_.value, work.rotation, static_cast<Real>(config_.norm_epsilon)};
}

template <class Storage>
HeadNorm<Storage> GatedAttention<Storage>::key_norm(const Saved& saved, const Work& work) const {
  return {saved.key, k_norm_.value, work.rotation, static_cast<Real>(config_.norm_epsilon)};
}

template <class Storage>
Tensor<const Storage, 3> GatedAttention<Storage>::gate_of(const Tensor<Storage, 3>& query) const {
  return config_.gated ? query : Tensor<Storage, 3>();
}

template <class Storage>
void GatedAttention<Storage>::rotate(const Exec& exec, const Documents& documents,
                                     const Saved& saved, const Work& work) const {
  rotary_angles<Real>(exec, documents.position, config_.rotary_base, work.rotation);
  norm_and_rotate<Storage>(exec, query_norm(saved, work), work.q);
  norm_and_rotate<Storage>(exec, key_norm(saved, work), work.k);
}

template <class Storage>
void GatedAttention<Storage>::attend(const Exec& exec, const Documents& documents,
                                     const State* initial, const Saved& saved,
                                     const Work& work) const {
  if (!ring_.alone()) {
    ring_.forward(exec, documents, work.q, work.k, saved.value, gate_of(saved.query),
                  saved.attended, saved.log_sum_exp, work.ring, work.attention);
    return;
  }
  AttentionInput<Storage> in{work.q, work.k, saved.value};
  if (initial != nullptr) {
    in.cached_k = initial->keys;
    in.cached_v = initial->values;
  }
  attention_forward<Storage>(exec, documents, AttentionTiles::usual(), in, gate_of(saved.query),
                             saved.attended, saved.log_sum_exp, work.attention);
}

template <class Storage>
void GatedAttention<Storage>::forward(const Exec& exec, const Documents& documents,
                                      const Tensor<const Storage, 2>& x, const State* initial,
                                      const Tensor<Storage, 2>& y, State* final, Saved& saved,
                                      const Work& work) const {
  require(ring_.alone() || (initial == nullptr && final == nullptr),
          "attention: context ranks pass keys to each other and take none");
  saved.x = x;
  const auto all = work.rows.input(exec, x);
  q_proj_.template forward<Storage>(exec, all, rows_of<Storage>(saved.query), work.low);
  k_proj_.template forward<Storage>(exec, all, rows_of<Storage>(saved.key), work.low);
  v_proj_.template forward<Storage>(exec, all, rows_of<Storage>(saved.value), work.low);
  rotate(exec, documents, saved, work);
  attend(exec, documents, initial, saved, work);
  if (final != nullptr) {
    attention_remember<Storage>(exec, documents, work.k, saved.value, final->keys, final->values);
  }
  o_proj_.template forward<Storage>(exec, rows_of<Storage>(saved.attended), work.rows.partial(y),
                                    work.low);
  work.rows.sum(exec, y);
}

template <class Storage>
void GatedAttention<Storage>::backward(const Exec& exec, const Documents& documents,
                                       const Tensor<const Storage, 2>& dy, const State* dfinal,
                                       const Saved& saved, const Tensor<Storage, 2>& dx,
                                       State* dinitial, const Work& work) const {
  require(dfinal == nullptr && dinitial == nullptr,
          "attention: gradients of cached keys and values are not there");
  const auto dout = work.rows.gradient(exec, dy);
  o_proj_.backward_weight(exec, dout, rows_of<Storage>(saved.attended), work.low);
  o_proj_.backward_input(exec, dout, rows_of<Storage>(work.dattended), work.low);
  rotate(exec, documents, saved, work);
  attention_gate_backward<Storage>(exec, gate_of(saved.query), saved.attended, work.dattended,
                                   work.dquery, work.delta);
  const AttentionGradient<Storage> gradient{work.dquery, work.dkey, work.dvalue};
  if (ring_.alone()) {
    attention_backward<Storage>(exec, documents, AttentionTiles::usual(),
                                {work.q, work.k, saved.value}, work.dattended, saved.log_sum_exp,
                                work.delta, gradient, work.attention);
  } else {
    ring_.backward(exec, documents, work.q, work.k, saved.value, work.dattended, saved.log_sum_exp,
                   work.delta, gradient, work.ring, work.attention);
  }
  norm_and_rotate_backward<Storage>(exec, query_norm(saved, work), work.dquery, work.dquery,
                                    work.partial, q_norm_.grad);
  norm_and_rotate_backward<Storage>(exec, key_norm(saved, work), work.dkey, work.dkey, work.partial,
                                    k_norm_.grad);
  const auto dquery = rows_of<Storage>(work.dquery);
  const auto dkey = rows_of<Storage>(work.dkey);
  const auto dvalue = rows_of<Storage>(work.dvalue);
  const auto x = work.rows.input(exec, saved.x);
  q_proj_.backward_weight(exec, dquery, x, work.low);
  k_proj_.backward_weight(exec, dkey, x, work.low);
  v_proj_.backward_weight(exec, dvalue, x, work.low);
  const auto din = work.rows.partial(dx);
  q_proj_.backward_input(exec, dquery, din, work.low);
  k_proj_.backward_input(exec, dkey, din, work.low, Write::add);
  v_proj_.backward_input(exec, dvalue, din, work.low, Write::add);
  work.rows.sum(exec, dx);
}

template <class Storage>
void GatedAttention<Storage>::step(const Exec& exec, const Documents& documents,
                                   const Tensor<const Storage, 2>& x, State& state,
                                   const Tensor<Storage, 2>& y, Saved& saved,
                                   const Work& work) const {
  forward(exec, documents, x, &state, y, &state, saved, work);
}

template class GatedAttention<bf16>;
template class GatedAttention<float>;
template class GatedAttention<double>;

}  // namespace qnext
