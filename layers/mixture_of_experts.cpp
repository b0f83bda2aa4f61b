// SPDX-License-Identifier: Apache-2.0
#include "layers/mixture_of_experts.hpp"

#include "core/dot.hpp"
#include "core/math.hpp"
#include "core/require.hpp"
#include "core/team.hpp"
#include "layers/kernels/column_sum.hpp"
#include "layers/kernels/experts_decode.hpp"
#include "layers/kernels/swiglu.hpp"

#include <algorithm>
#include <string>
#include <type_traits>

namespace qnext {
namespace {

constexpr int rows_per_block = 64;

// So many tokens of a step go through their experts at once.
constexpr int decode_tokens = 8;

template <class View>
View some_rows(const View& all, int first, int count) {
  return View(all.data() + std::int64_t{first} * all.extent_int(1), count, all.extent(1));
}

template <class Real>
Routing<Real> rows_of_routing(const Routing<Real>& all, int first, int count) {
  return {.probabilities = some_rows(all.probabilities, first, count),
          .log_sum = Tensor<Real, 1>(all.log_sum.data() + first, count),
          .selected = some_rows(all.selected, first, count),
          .weights = some_rows(all.weights, first, count),
          .given = all.given};
}

int row_blocks(int T) {
  return (T + rows_per_block - 1) / rows_per_block;
}

template <class Storage>
struct Widen {
  Tensor<const Storage, 2> x;
  Tensor<Accum<Storage>, 2> widened;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const Storage* const from = &x(t, 0);
    Accum<Storage>* const to = &widened(t, 0);
    for_each_in(team, x.extent_int(1),
                [&](const int d) { to[d] = static_cast<Accum<Storage>>(from[d]); });
  }
};

// factor(t) = sigmoid(x_t . s), or x_t . s alone. A team takes a token.
template <class Storage>
struct SharedGate {
  using Real = Accum<Storage>;

  Tensor<const Storage, 2> x;
  Tensor<const Storage, 2> gate;  // (1, D)
  Tensor<Real, 1> factor;
  bool whole;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const Storage* const row = &x(t, 0);
    const Real projected = dot<Real>(team, x.extent_int(1), gate.data(), row);
    Kokkos::single(Kokkos::PerTeam(team),
                   [&] { factor(t) = whole ? sigmoid(projected) : projected; });
  }
};

template <class Real>
void sigmoid_of_all(const Exec& exec, const Tensor<Real, 1>& factor) {
  Kokkos::parallel_for(
      "experts::shared_gate_sigmoid", Kokkos::RangePolicy<Exec>(exec, 0, factor.extent_int(0)),
      KOKKOS_LAMBDA(const int t) { factor(t) = sigmoid(factor(t)); });
}

template <class Storage>
void round_all(const Exec& exec, const Tensor<const Accum<Storage>, 1>& from,
               const Tensor<Storage, 2>& to) {
  Kokkos::parallel_for(
      "experts::shared_gate_gradient", Kokkos::RangePolicy<Exec>(exec, 0, from.extent_int(0)),
      KOKKOS_LAMBDA(const int t) { to(t, 0) = Storage(from(t)); });
}

// dfactor becomes the gradient of x_t . s, and a block of tokens leaves its part of the gradient of
// s. A team takes a block.
template <class Storage>
struct SharedGateBackward {
  using Real = Accum<Storage>;

  Tensor<const Storage, 2> x;
  Tensor<const Real, 1> factor;
  Tensor<Real, 1> dfactor;
  Tensor<Real, 2> partial;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int T = x.extent_int(0);
    const int D = x.extent_int(1);
    const int first = team.league_rank() * rows_per_block;
    const int last = min(first + rows_per_block, T);
    Real* const sum = &partial(team.league_rank(), 0);
    for_each_in(team, last - first, [&](const int i) {
      const Real f = factor(first + i);
      dfactor(first + i) *= f * (Real(1) - f);
    });
    for_each_in(team, D, [&](const int d) { sum[d] = 0; });
    team.team_barrier();
    for (int t = first; t < last; ++t) {
      const Storage* const row = &x(t, 0);
      const Real gradient = dfactor(t);
      for_each_in(team, D, [&](const int d) { sum[d] += gradient * static_cast<Real>(row[d]); });
    }
  }
};

}  // namespace

template <class Storage>
MixtureOfExperts<Storage>::MixtureOfExperts(const MixtureOfExpertsConfig& config,
                                            const ProcessGrid& grid, ParameterTable& table,
                                            const std::string& prefix)
    : config_(config),
      grid_(grid),
      adapters_(table.adapters()),
      capacity_(config.capacity, grid),
      router_(table, grid,
              grid.replicated({.name = prefix + ".gate.weight",
                               .shard = Shard::whole({config.experts, config.model_width}),
                               .init = Init::normal(config.init_deviation)})),
      gate_up_(
          table,
          {.name = prefix + ".experts.gate_up_proj",
           .shard = grid.expert_part({config.experts, 2 * config.expert_width, config.model_width}),
           .init = Init::normal(config.init_deviation),
           .reduce_over = ReduceOver::data_beside_experts}),
      down_(table,
            {.name = prefix + ".experts.down_proj",
             .shard = grid.expert_part({config.experts, config.model_width, config.expert_width}),
             .init = Init::normal(config.init_deviation),
             .reduce_over = ReduceOver::data_beside_experts}) {
  const int D = config.model_width, E = config.experts;
  require(config.experts_per_token >= 1 && config.experts_per_token <= E,
          prefix + ": " + std::to_string(config.experts_per_token) + " experts per token of " +
              std::to_string(E));
  const int degree = grid.degrees.expert;
  require(E % degree == 0,
          prefix + ": " + std::to_string(E) + " experts over " + std::to_string(degree) + " ranks");
  if (degree > 1) {
    over_ranks_ =
        std::make_unique<ExpertsOverRanks<Storage>>(grid.expert, degree, E, config.receive_factor);
  }
  if (config.shared_width > 0) {
    const DenseMlpConfig shared{D, config.shared_width, config.init_deviation};
    shared_ = std::make_unique<DenseMlp<Storage>>(shared, grid, table, prefix + ".shared_expert");
    shared_gate_ = std::make_unique<Linear<Storage>>(
        table, grid,
        grid.replicated({.name = prefix + ".shared_expert_gate.weight",
                         .shard = Shard::whole({1, D}),
                         .init = Init::normal(config.init_deviation)}));
  }
}

template <class Storage>
int MixtureOfExperts<Storage>::rows_of(const MicrobatchShape& shape) const {
  return RowSplit(grid_, shape.tokens, shape.sequences).rows();
}

// A rank may have no token of its own where documents are decoded, and is sent rows all the same.
template <class Storage>
int MixtureOfExperts<Storage>::received_rows(const MicrobatchShape& shape) const {
  const int tokens = shape.decoding ? shape.tokens : rows_of(shape);
  return over_ranks_->most_rows(std::max(1, tokens), config_.experts_per_token);
}

template <class Storage>
typename MixtureOfExperts<Storage>::Saved MixtureOfExperts<Storage>::reserve_saved(
    Arena& arena, const MicrobatchShape& shape) const {
  const int T = rows_of(shape), E = config_.experts, K = config_.experts_per_token;
  Saved saved;
  saved.routing = {.probabilities = arena.reserve<Real, 2>("probabilities", T, E),
                   .log_sum = arena.reserve<Real, 1>("log_sum", T),
                   .selected = arena.reserve<int, 2>("selected", T, K),
                   .weights = arena.reserve<Real, 2>("weights", T, K)};
  saved.rows = {.place = arena.reserve<int, 2>("place", T, K),
                .offset = arena.reserve<int, 1>("offset", E + 1)};
  if (over_ranks_) {
    saved.over_ranks =
        over_ranks_->reserve_saved(arena, received_rows(shape), config_.expert_width);
  } else {
    saved.gate_up = arena.reserve<Storage, 2>("gate_up", T * K, 2 * config_.expert_width);
  }
  saved.statistics = RoutingStatistics<Real>::reserve(arena, shape.sequences, E);
  if (shared_) {
    saved.shared_factor = arena.reserve<Real, 1>("shared_factor", T);
    const Arena::Room room(arena, "shared");
    saved.shared = shared_->reserve_saved(arena, shape);
  }
  return saved;
}

template <class Storage>
typename MixtureOfExperts<Storage>::Work MixtureOfExperts<Storage>::reserve_work(
    Arena& arena, const MicrobatchShape& shape) const {
  const int T = rows_of(shape), D = config_.model_width, E = config_.experts;
  const int K = config_.experts_per_token, F = config_.expert_width;
  Work work;
  work.rows = arena.reserve<Storage, 2>("rows", T * K, D);
  if (over_ranks_) {
    work.over_ranks =
        over_ranks_->reserve_work(arena, routed_have_adapters() ? adapters_ : AdapterConfig{},
                                  T * K, received_rows(shape), D, F);
  } else {
    work.hidden = arena.reserve<Storage, 2>("hidden", T * K, F);
    work.dgate_up = arena.reserve<Storage, 2>("dgate_up", T * K, 2 * F);
    work.low = Adapter<Storage>::reserve_low(
        arena, routed_have_adapters() ? adapters_ : AdapterConfig{}, T * K);
  }
  if (router_.has_adapter()) {
    work.router_low = Adapter<Real>::reserve_low(arena, adapters_, T);
  }
  if (gate_has_adapter()) {
    work.gate_low = Adapter<Storage>::reserve_low(arena, adapters_, T);
    work.dgate = arena.reserve<Storage, 2>("shared_gate_gradient", T, 1);
  }
  work.dlogits = arena.reserve<Real, 2>("dlogits", T, E);
  work.dweights = arena.reserve<Real, 2>("dweights", T, K);
  work.dispatch = DispatchWork<Real>::reserve(arena, T, shape.sequences, E);
  work.capacity = capacity_.reserve_work(arena, shape, E, K);
  work.decoded =
      arena.reserve<Real, 2>("decoded", std::min(T, decode_tokens), K * F + config_.shared_width);
  if constexpr (!std::is_same_v<Storage, Real>) {
    work.widened = arena.reserve<Real, 2>("widened", T, D);
  }
  if (shared_) {
    work.dshared_factor = arena.reserve<Real, 1>("dshared_factor", T);
    work.partial = arena.reserve<Real, 2>("shared_gate_partial", row_blocks(T), D);
    const Arena::Room room(arena, "shared");
    work.shared = shared_->reserve_work(arena, shape);
  }
  return work;
}

template <class Storage>
Tensor<const Accum<Storage>, 2> MixtureOfExperts<Storage>::widen(const Exec& exec,
                                                                 const Tensor<const Storage, 2>& x,
                                                                 const Work& work) const {
  if constexpr (std::is_same_v<Storage, Real>) {
    return x;
  } else {
    Kokkos::parallel_for("experts::widen", row_policy(exec, x.extent_int(0)),
                         Widen<Storage>{x, work.widened});
    return work.widened;
  }
}

template <class Storage>
void MixtureOfExperts<Storage>::route_tokens(const Exec& exec, const Tensor<const Storage, 2>& x,
                                             const Saved& saved, const Work& work) const {
  router_.template forward<Real>(exec, widen(exec, x, work), saved.routing.probabilities,
                                 work.router_low);
  route<Real>(exec, config_.renormalise, saved.routing);
}

template <class Storage>
void MixtureOfExperts<Storage>::forward(const Exec& exec, const Documents& documents,
                                        const Tensor<const Storage, 2>& x,
                                        const Tensor<Storage, 2>& y, Saved& saved,
                                        const Work& work) const {
  const int S = documents.sequences;
  require(x.extent_int(0) % S == 0, std::to_string(x.extent_int(0)) + " tokens in " +
                                        std::to_string(S) + " sequences of equal length");
  route_tokens(exec, x, saved, work);
  sort_by_expert(exec, S, saved.routing.selected, Choices::all, saved.rows, work.dispatch.count,
                 saved.statistics.count);
  sum_routing<Real>(exec, saved.routing, saved.statistics, work.dispatch);
  if (config_.capacity.rule != Capacity::Rule::dropless) {
    capacity_.drop(exec, saved.statistics.count, saved.routing, saved.rows, work.capacity);
    sort_by_expert(exec, S, saved.routing.selected, Choices::kept, saved.rows, work.dispatch.count);
  }
  compute(exec, x, y, saved, work);
}

template <class Storage>
void MixtureOfExperts<Storage>::compute(const Exec& exec, const Tensor<const Storage, 2>& x,
                                        const Tensor<Storage, 2>& y, Saved& saved,
                                        const Work& work) const {
  saved.x = x;
  if (shared_) {
    shared_forward(exec, x, y, saved, work);
  }
  experts_forward(exec, x, saved, work);
  TokenTerms<Storage> terms;
  terms.add = shared_ != nullptr;
  gather_tokens<Storage>(exec, work.rows, saved.rows.place, terms, y);
}

template <class Storage>
void MixtureOfExperts<Storage>::shared_forward(const Exec& exec, const Tensor<const Storage, 2>& x,
                                               const Tensor<Storage, 2>& y, Saved& saved,
                                               const Work& work) const {
  Kokkos::parallel_for("experts::shared_gate", row_policy(exec, x.extent_int(0)),
                       SharedGate<Storage>{x, shared_gate_->weight().value, saved.shared_factor,
                                           !gate_has_adapter()});
  if (gate_has_adapter()) {
    const Tensor<Real, 2> projected(saved.shared_factor.data(), x.extent(0), 1);
    shared_gate_->adapter().template add<Real>(exec, x, projected, work.gate_low);
    sigmoid_of_all<Real>(exec, Tensor<Real, 1>(projected.data(), x.extent(0)));
  }
  shared_->forward(exec, x, y, saved.shared, work.shared, saved.shared_factor);
}

// Leaves the weighted outputs of the experts in work.rows.
template <class Storage>
void MixtureOfExperts<Storage>::experts_forward(const Exec& exec, const Tensor<const Storage, 2>& x,
                                                Saved& saved, const Work& work) const {
  if (over_ranks_) {
    over_ranks_->forward(exec, {gate_up_, down_}, x, saved.routing, saved.rows, saved.over_ranks,
                         work.over_ranks, work.rows);
    return;
  }
  const auto& place = saved.rows.place;
  const auto& offset = saved.rows.offset;
  spread_tokens<Storage>(exec, x, place, work.rows);
  gate_up_.forward(exec, offset, work.rows, saved.gate_up, work.low);
  const auto& weights = saved.routing.weights;
  const SwigluRows<Real> rows{place.extent_int(0) * place.extent_int(1), saved.rows.flat_place(),
                              Tensor<const Real, 1>(weights.data(), weights.size())};
  swiglu_forward<Storage>(exec, rows, side_by_side<const Storage>(saved.gate_up), work.hidden);
  down_.forward(exec, offset, work.hidden, work.rows, work.low);
}

template <class Storage>
void MixtureOfExperts<Storage>::backward(const Exec& exec, const Documents&,
                                         const Tensor<const Storage, 2>& dy, const Saved& saved,
                                         const BalanceGradient<Real>* balance,
                                         const Tensor<Storage, 2>& dx, const Work& work) const {
  TokenTerms<Storage> terms;
  if (shared_) {
    shared_->backward(exec, dy, saved.shared, dx, work.shared, saved.shared_factor,
                      work.dshared_factor);
    shared_gate_backward(exec, saved, dx, work);
    terms.add = true;
    terms.scale = work.dshared_factor;
    terms.direction =
        Tensor<const Storage, 1>(shared_gate_->weight().value.data(), config_.model_width);
  }
  experts_backward(exec, dy, saved, work);
  route_backward<Real>(exec, config_.renormalise, saved.routing, work.dweights, balance,
                       work.dlogits);
  if (router_.trained()) {
    router_.backward_weight(exec, work.dlogits, widen(exec, saved.x, work), work.router_low);
  }
  if constexpr (std::is_same_v<Storage, Real>) {
    router_.backward_input(exec, work.dlogits, dx, work.router_low,
                           terms.add ? Write::add : Write::replace);
    terms.add = true;
  } else {
    router_.backward_input(exec, work.dlogits, work.widened, work.router_low);
    terms.matrix = work.widened;
  }
  gather_tokens<Storage>(exec, work.rows, saved.rows.place, terms, dx);
}

// Leaves the gradient of the weights in work.dweights and that of the rows of x in work.rows.
template <class Storage>
void MixtureOfExperts<Storage>::experts_backward(const Exec& exec,
                                                 const Tensor<const Storage, 2>& dy,
                                                 const Saved& saved, const Work& work) const {
  if (over_ranks_) {
    over_ranks_->backward(exec, {gate_up_, down_}, saved.x, dy, saved.routing, saved.rows,
                          saved.over_ranks, work.over_ranks, work.rows, work.dweights);
    return;
  }
  const auto& place = saved.rows.place;
  const auto& offset = saved.rows.offset;
  const auto& weights = saved.routing.weights;
  spread_tokens<Storage>(exec, dy, place, work.rows);
  down_.backward_input(exec, offset, work.rows, work.hidden, work.low);
  const SwigluRows<Real> rows{place.extent_int(0) * place.extent_int(1), saved.rows.flat_place(),
                              Tensor<const Real, 1>(weights.data(), weights.size())};
  swiglu_backward<Storage>(exec, rows, side_by_side<const Storage>(saved.gate_up), work.hidden,
                           side_by_side<Storage>(work.dgate_up),
                           Tensor<Real, 1>(work.dweights.data(), work.dweights.size()));
  down_.backward_weight(exec, offset, work.rows, work.hidden, work.low);
  if (gate_up_.trained()) {
    spread_tokens<Storage>(exec, saved.x, place, work.rows);
    gate_up_.backward_weight(exec, offset, work.dgate_up, work.rows, work.low);
  }
  gate_up_.backward_input(exec, offset, work.dgate_up, work.rows, work.low);
}

template <class Storage>
void MixtureOfExperts<Storage>::shared_gate_backward(const Exec& exec, const Saved& saved,
                                                     const Tensor<Storage, 2>& dx,
                                                     const Work& work) const {
  const int blocks = row_blocks(saved.x.extent_int(0));
  Kokkos::parallel_for(
      "experts::shared_gate_backward", row_policy(exec, blocks),
      SharedGateBackward<Storage>{saved.x, saved.shared_factor, work.dshared_factor, work.partial});
  add_column_sums<Real>(exec, work.partial, blocks,
                        Tensor<Real, 1>(shared_gate_->weight().grad.data(), config_.model_width));
  if (gate_has_adapter()) {
    round_all<Storage>(exec, work.dshared_factor, work.dgate);
    shared_gate_->adapter().add_gradients(exec, work.dgate, saved.x, work.gate_low);
    shared_gate_->adapter().add_input_gradient(exec, work.dgate, dx, work.gate_low);
  }
}

template <class Storage>
void MixtureOfExperts<Storage>::step(const Exec& exec, const Tensor<const Storage, 2>& x,
                                     const Tensor<Storage, 2>& y, Saved& saved,
                                     const Work& work) const {
  if (over_ranks_ || routed_have_adapters() || router_.has_adapter() || gate_has_adapter()) {
    route_tokens(exec, x, saved, work);
    sort_by_expert(exec, 1, saved.routing.selected, Choices::all, saved.rows, work.dispatch.count);
    compute(exec, x, y, saved, work);
    return;
  }
  // Tensor ranks divide the shared expert, but not the others; adapters are beside it alone.
  const bool shared_apart = shared_ && (grid_.degrees.tensor > 1 || shared_->has_adapters());
  if (shared_apart) {
    shared_forward(exec, x, y, saved, work);
  }
  ExpertsDecode<Storage> decode;
  decode.router = router_.weight().value;
  decode.gate_up = gate_up_.weight().value;
  decode.down = down_.weight().value;
  if (shared_ && !shared_apart) {
    decode.shared_gate = shared_->gate().weight().value;
    decode.shared_up = shared_->up().weight().value;
    decode.shared_down = shared_->down().weight().value;
    decode.direction = shared_gate_->weight().value;
  }
  const int width =
      config_.experts_per_token * config_.expert_width + decode.shared_gate.extent_int(0);
  for (int first = 0; first < x.extent_int(0); first += decode_tokens) {
    const int T = std::min(decode_tokens, x.extent_int(0) - first);
    const Routing<Real> routing = rows_of_routing(saved.routing, first, T);
    decode.x = some_rows(x, first, T);
    decode.selected = routing.selected;
    decode.weights = routing.weights;
    if (decode.direction.extent(0) != 0) {
      decode.shared_factor = Tensor<Real, 1>(saved.shared_factor.data() + first, T);
    }
    decode.hidden = Tensor<Real, 2>(work.decoded.data(), T, width);
    decode.logits(exec, routing.probabilities);
    route<Real>(exec, config_.renormalise, routing);
    decode.compute(exec, some_rows(y, first, T), shared_apart ? Write::add : Write::replace);
  }
}

template class MixtureOfExperts<bf16>;
template class MixtureOfExperts<float>;
template class MixtureOfExperts<double>;

}  // namespace qnext
