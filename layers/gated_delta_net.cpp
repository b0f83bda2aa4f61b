// SPDX-License-Identifier: Apache-2.0
#include "layers/gated_delta_net.hpp"

#include "core/require.hpp"

namespace qnext {
namespace {

GroupedProjection layout_of(const GatedDeltaNetConfig& config, const ProcessGrid& grid) {
  require(config.value_heads % config.key_heads == 0,
          "delta net: value_heads = " + std::to_string(config.value_heads) +
              ", wanted a multiple of key_heads = " + std::to_string(config.key_heads));
  const int ranks = grid.degrees.tensor;
  require(config.key_heads % ranks == 0,
          "delta net: key_heads = " + std::to_string(config.key_heads) +
              ", wanted a multiple of the tensor degree " + std::to_string(ranks));
  return {config.key_heads / ranks, config.value_heads / config.key_heads, config.key_width,
          config.value_width};
}

// Of the projection of all ranks.
int columns_of(const GatedDeltaNetConfig& config) {
  return 2 * (config.key_heads * config.key_width + config.value_heads * config.value_width);
}

template <class Storage>
DeltaRuleInput<Storage> rule_input(const QueryKeyValue<Storage>& convolved,
                                   const typename GatedDeltaNet<Storage>::Saved& saved) {
  return {convolved.q, convolved.k, convolved.v, saved.log_decay, saved.beta};
}

// The same memory with the heads as one extent.
template <class T>
Tensor<T, 2> rows_of(const Tensor<T, 3>& heads) {
  return Tensor<T, 2>(heads.data(), heads.extent(0), heads.extent(1) * heads.extent(2));
}
template <class T>
Tensor<T, 3> heads_of(const Tensor<T, 2>& rows, int heads) {
  return Tensor<T, 3>(rows.data(), rows.extent(0), heads, rows.extent(1) / heads);
}

}  // namespace

template <class Storage>
GatedDeltaNet<Storage>::GatedDeltaNet(const GatedDeltaNetConfig& config, const ProcessGrid& grid,
                                      ParameterTable& table, const std::string& prefix)
    : config_(config),
      layout_(layout_of(config, grid)),
      grid_(grid),
      qkvz_proj_(table, grid,
                 {.name = prefix + ".in_proj_qkvz.weight",
                  .shard = grid.tensor_part({columns_of(config), config.model_width}, 0),
                  .init = Init::normal(config.init_deviation)}),
      ba_proj_(table, grid,
               {.name = prefix + ".in_proj_ba.weight",
                .shard = grid.tensor_part({2 * config.value_heads, config.model_width}, 0),
                .init = Init::normal(config.init_deviation)}),
      conv_(table, prefix + ".conv1d.weight", layout_, config.conv_taps, grid),
      norm_(table, prefix + ".norm.weight", layout_, config.norm_epsilon, grid),
      out_proj_(table, grid,
                {.name = prefix + ".out_proj.weight",
                 .shard = grid.tensor_part(
                     {config.model_width, config.value_heads * config.value_width}, 1),
                 .init = Init::normal(config.init_deviation)}),
      pieces_(grid, {layout_.G, layout_.heads(), layout_.K, layout_.V, config.chunk},
              config.conv_taps, layout_.channels()),
      adapters_(table.adapters()) {
  table.add({.name = prefix + ".A_log",
             .shard = grid.tensor_part({config.value_heads}, 0),
             .init = Init::log_uniform(16.0),
             .decay = Decay::no},
            a_log_);
  table.add({.name = prefix + ".dt_bias",
             .shard = grid.tensor_part({config.value_heads}, 0),
             .init = Init::ones(),
             .decay = Decay::no},
            dt_bias_);
}

template <class Storage>
typename GatedDeltaNet<Storage>::Saved GatedDeltaNet<Storage>::reserve_saved(
    Arena& arena, const MicrobatchShape& shape) const {
  const int T = shape.tokens, H = layout_.heads();
  Saved saved;
  saved.qkvz = arena.reserve<Storage, 2>("qkvz", T, layout_.columns());
  saved.log_decay = arena.reserve<Real, 2>("log_decay", T, H);
  saved.beta = arena.reserve<Real, 2>("beta", T, H);
  saved.read = arena.reserve<Storage, 3>("read", T, H, layout_.V);
  if (!pieces_.alone()) {
    saved.initial = reserve_state(arena, shape.sequences);
    saved.transition = pieces_.reserve_transition(arena, shape.sequences);
  }
  return saved;
}

template <class Storage>
typename GatedDeltaNet<Storage>::Work GatedDeltaNet<Storage>::reserve_work(
    Arena& arena, const MicrobatchShape& shape) const {
  const int T = shape.tokens, H = layout_.heads(), G = layout_.G;
  Work work;
  work.rows = SharedRows<Storage>::reserve(arena, grid_, shape, config_.model_width);
  work.convolved.q = arena.reserve<Storage, 3>("q", T, G, layout_.K);
  work.convolved.k = arena.reserve<Storage, 3>("k", T, G, layout_.K);
  work.convolved.v = arena.reserve<Storage, 3>("v", T, H, layout_.V);
  work.ba = arena.reserve<Real, 2>("ba", T, 2 * H);
  work.normed = arena.reserve<Storage, 2>("normed", T, H * layout_.V);
  work.dnormed = arena.reserve<Storage, 2>("dnormed", T, H * layout_.V);
  work.dqkvz = arena.reserve<Storage, 2>("dqkvz", T, layout_.columns());
  work.dba = arena.reserve<Storage, 2>("dba", T, 2 * H);
  work.dlog_decay = arena.reserve<Real, 2>("dlog_decay", T, H);
  work.dbeta = arena.reserve<Real, 2>("dbeta", T, H);
  work.conv = conv_.reserve_work(arena, T);
  work.norm = norm_.reserve_work(arena, T);
  work.gates = reserve_delta_gates_work<Real>(arena, T, H);
  work.rule = reserve_delta_rule_work<Storage>(arena, {G, H, layout_.K, layout_.V, config_.chunk},
                                               shape, !pieces_.alone());
  work.pieces = pieces_.reserve_work(arena, shape.sequences);
  work.low = Adapter<Storage>::reserve_low(arena, adapters_, T);
  return work;
}

template <class Storage>
typename GatedDeltaNet<Storage>::State GatedDeltaNet<Storage>::reserve_state(Arena& arena,
                                                                             int documents) const {
  return {
      arena.reserve<Storage, 3>("conv_tail", documents, config_.conv_taps - 1, layout_.channels()),
      arena.reserve<Real, 4>("memory", documents, layout_.heads(), layout_.K, layout_.V)};
}

template <class Storage>
void GatedDeltaNet<Storage>::project(const Exec& exec, const Tensor<const Storage, 2>& x,
                                     Saved& saved, const Work& work) const {
  qkvz_proj_.template forward<Storage>(exec, x, saved.qkvz, work.low);
  ba_proj_.template forward<Real>(exec, x, work.ba, work.low);
  delta_gates<Real>(exec, layout_.G, work.ba, a_log_.value, dt_bias_.value, saved.log_decay,
                    saved.beta);
}

template <class Storage>
void GatedDeltaNet<Storage>::finish(const Exec& exec, const Saved& saved,
                                    const Tensor<Storage, 2>& y, const Work& work) const {
  norm_.forward(exec, saved.read, saved.qkvz, work.normed);
  out_proj_.template forward<Storage>(exec, work.normed, work.rows.partial(y), work.low);
  work.rows.sum(exec, y);
}

template <class Storage>
void GatedDeltaNet<Storage>::forward(const Exec& exec, const Documents& documents,
                                     const Tensor<const Storage, 2>& x, const State* initial,
                                     const Tensor<Storage, 2>& y, State* final, Saved& saved,
                                     const Work& work) const {
  const bool pieces = !pieces_.alone();
  require(!pieces || (initial == nullptr && final == nullptr),
          "delta net: context ranks pass states to each other and take none");
  saved.x = x;
  if (!pieces) {
    saved.initial = initial != nullptr ? *initial : State{};
  }
  const State result = final != nullptr ? *final : State{};
  project(exec, work.rows.input(exec, x), saved, work);
  if (pieces) {
    pieces_.find_tails(exec, documents, conv_, saved.qkvz, saved.initial.conv_tail, work.pieces);
  }
  conv_.forward(exec, documents, saved.qkvz, saved.initial.conv_tail, work.convolved,
                result.conv_tail, work.conv);
  if (pieces) {
    pieces_.find_memories(exec, documents, rule_input<Storage>(work.convolved, saved),
                          saved.transition, saved.initial.memory, work.pieces, work.rule);
  }
  delta_rule_chunked<Storage>(exec, documents, config_.chunk,
                              rule_input<Storage>(work.convolved, saved), saved.initial.memory,
                              saved.read, result.memory, work.rule);
  finish(exec, saved, y, work);
}

template <class Storage>
void GatedDeltaNet<Storage>::backward(const Exec& exec, const Documents& documents,
                                      const Tensor<const Storage, 2>& dy, const State* dfinal,
                                      const Saved& saved, const Tensor<Storage, 2>& dx,
                                      State* dinitial, const Work& work) const {
  const bool pieces = !pieces_.alone();
  require(!pieces || (dfinal == nullptr && dinitial == nullptr),
          "delta net: context ranks pass gradients of states to each other and take none");
  State given = dfinal != nullptr ? *dfinal : State{};
  State wanted = dinitial != nullptr ? *dinitial : State{};
  const auto dread = heads_of<Storage>(work.dnormed, layout_.heads());
  const auto dout = work.rows.gradient(exec, dy);
  out_proj_.backward_input(exec, dout, work.dnormed, work.low);
  norm_.backward(exec, work.dnormed, saved.read, saved.qkvz, dread, work.dqkvz, work.normed,
                 work.norm);
  out_proj_.backward_weight(exec, dout, work.normed, work.low);

  conv_.forward(exec, documents, saved.qkvz, saved.initial.conv_tail, work.convolved, {},
                work.conv);
  if (pieces) {
    pieces_.find_memory_gradients(exec, documents, rule_input<Storage>(work.convolved, saved),
                                  dread, saved.transition, work.pieces, work.rule);
    given.memory = work.pieces.arrived;
    wanted.conv_tail = work.pieces.tails;
    Kokkos::deep_copy(exec, wanted.conv_tail, Storage(0.0f));
  }
  const DeltaRuleGradient<Storage> gradient{work.convolved.q, work.convolved.k, work.convolved.v,
                                            work.dlog_decay, work.dbeta};
  delta_rule_chunked_backward<Storage>(
      exec, documents, config_.chunk, rule_input<Storage>(work.convolved, saved),
      saved.initial.memory, dread, given.memory, gradient, wanted.memory, work.rule);
  conv_.backward(exec, documents, saved.qkvz, saved.initial.conv_tail, work.convolved,
                 given.conv_tail, work.dqkvz, wanted.conv_tail, work.conv);
  if (pieces) {
    pieces_.return_tails(exec, documents, conv_, work.dqkvz, work.pieces);
  }
  delta_gates_backward<Storage>(exec, layout_.G, work.dlog_decay, work.dbeta, saved.log_decay,
                                saved.beta, a_log_.value, work.dba, a_log_.grad, dt_bias_.grad,
                                work.gates);

  const auto din = work.rows.partial(dx);
  qkvz_proj_.backward_input(exec, work.dqkvz, din, work.low);
  ba_proj_.backward_input(exec, work.dba, din, work.low, Write::add);
  const auto x = work.rows.input(exec, saved.x);
  qkvz_proj_.backward_weight(exec, work.dqkvz, x, work.low);
  ba_proj_.backward_weight(exec, work.dba, x, work.low);
  work.rows.sum(exec, dx);
}

template <class Storage>
void GatedDeltaNet<Storage>::step(const Exec& exec, const Documents& documents,
                                  const Tensor<const Storage, 2>& x, State& state,
                                  const Tensor<Storage, 2>& y, Saved& saved, const Work& work,
                                  Keep keep) const {
  project(exec, work.rows.input(exec, x), saved, work);
  conv_.step(exec, documents, saved.qkvz, state.conv_tail, work.convolved, keep);
  delta_rule_recurrent<Storage>(exec, documents, rule_input<Storage>(work.convolved, saved),
                                state.memory, saved.read, keep);
  finish(exec, saved, y, work);
}

template class GatedDeltaNet<bf16>;
template class GatedDeltaNet<float>;
template class GatedDeltaNet<double>;

}  // namespace qnext
