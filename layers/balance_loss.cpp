// SPDX-License-Identifier: Apache-2.0
#include "layers/balance_loss.hpp"

#include "core/team.hpp"
#include "parallel/ordered_sum.hpp"

#include <algorithm>

namespace qnext {
namespace {

// constant(r, e) = scale * (count of the sequences of row r), replaced or added. With one row it
// covers all sequences.
template <class Real>
struct Shares {
  Tensor<const int, 2> count;  // (S, E)
  Tensor<Real, 2> constant;    // (R, E)
  Real scale;
  bool add;

  KOKKOS_FUNCTION void operator()(const int e) const {
    const int R = constant.extent_int(0);
    const int sequences = count.extent_int(0) / R;
    for (int r = 0; r < R; ++r) {
      std::int64_t sum = 0;
      for (int s = r * sequences; s < (r + 1) * sequences; ++s) {
        sum += count(s, e);
      }
      const Real share = scale * static_cast<Real>(sum);
      constant(r, e) = add ? constant(r, e) + share : share;
    }
  }
};

// Replaces the shares of this microbatch by those of the step before, if there was one. One team.
template <class Real>
struct PreviousShares {
  Tensor<const double, 2> previous;  // (L, E)
  Tensor<Real, 2> constant;          // (1, E)
  int layer;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int E = constant.extent_int(1);
    const double total = sum_over<double>(team, E, [&](const int e) { return previous(layer, e); });
    if (total > 0.0) {
      for_each_in(team, E, [&](const int e) {
        constant(0, e) = static_cast<Real>(previous(layer, e) / total);
      });
    }
  }
};

// Counts of the microbatch join those of the step: whole numbers, exact in any order.
struct AddCounts {
  Tensor<const int, 2> count;  // (S, E)
  Tensor<double, 2> total;     // (L, E)
  int layer;

  KOKKOS_FUNCTION void operator()(const int e) const {
    for (int s = 0; s < count.extent_int(0); ++s) {
      total(layer, e) += count(s, e);
    }
  }
};

// The losses of one layer. One team, so that the sums have one order.
template <class Real>
struct AddLosses {
  RoutingStatistics<Real> statistics;
  Tensor<const Real, 2> constant;  // (R, E) or empty
  Real slope;
  Real z_slope;
  Tensor<double, 0> balance, router_z;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int S = statistics.count.extent_int(0);
    const int E = statistics.count.extent_int(1);
    Real sum = 0;
    Real squares = 0;
    for (int s = 0; s < S; ++s) {
      if (constant.extent(0) != 0) {
        const Real* const C = &constant(constant.extent(0) == 1 ? 0 : s, 0);
        const Real* const p = &statistics.probability(s, 0);
        sum += sum_over<Real>(team, E, [&](const int e) { return C[e] * p[e]; });
      }
      squares += statistics.square(s);
    }
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      balance() += static_cast<double>(slope * sum);
      router_z() += static_cast<double>(z_slope * squares);
    });
  }
};

}  // namespace

template <class Real>
RoutingStatistics<Real> RoutingStatistics<Real>::reserve(Arena& arena, int sequences, int experts) {
  return {.count = arena.reserve<int, 2>("routing_count", sequences, experts),
          .probability = arena.reserve<Real, 2>("routing_probability", sequences, experts),
          .square = arena.reserve<Real, 1>("routing_square", sequences)};
}

template <class Real>
RoutingOfLayers<Real> RoutingOfLayers<Real>::reserve(Arena& arena, int layers, int sequences,
                                                     int experts) {
  return {.count = arena.reserve<int, 3>("routing_count", layers, sequences, experts),
          .probability = arena.reserve<Real, 3>("routing_probability", layers, sequences, experts),
          .square = arena.reserve<Real, 2>("routing_square", layers, sequences)};
}

template <class Real>
std::vector<RoutingStatistics<Real>> RoutingOfLayers<Real>::layers() const {
  const std::size_t S = count.extent(1), E = count.extent(2);
  std::vector<RoutingStatistics<Real>> layers;
  for (std::size_t l = 0; l < count.extent(0); ++l) {
    layers.push_back({Tensor<int, 2>(count.data() + l * S * E, S, E),
                      Tensor<Real, 2>(probability.data() + l * S * E, S, E),
                      Tensor<Real, 1>(square.data() + l * S, S)});
  }
  return layers;
}

template <class Real>
BalanceLoss<Real>::BalanceLoss(const BalanceLossConfig& config, int layers, int experts,
                               int experts_per_token, ParameterTable& table,
                               const ProcessGrid& grid, int watched)
    : config_(config),
      grid_(grid),
      layers_(layers),
      watched_(watched),
      experts_(experts),
      experts_per_token_(experts_per_token),
      counts_(std::make_shared<Counts>()) {
  if (counts_steps()) {
    table.at_lay_out([counts = counts_, layers, experts] {
      counts->step = Tensor<double, 2>("balance loss: counts of this step", layers, experts);
      counts->previous =
          Tensor<double, 2>("balance loss: counts of the step before", layers, experts);
    });
  }
}

template <class Real>
typename BalanceLoss<Real>::Saved BalanceLoss<Real>::reserve_saved(Arena& arena,
                                                                   const MicrobatchShape& shape,
                                                                   int first, int routers) const {
  Saved saved;
  saved.first = first;
  saved.balanced = std::max(0, std::min(first + routers, layers_) - first);
  const int S = shape.sequences;
  saved.part = RoutingOfLayers<Real>::reserve(arena, routers, S, experts_);
  saved.whole = saved.part;
  if (!alone()) {
    saved.whole = RoutingOfLayers<Real>::reserve(arena, routers, S, experts_);
    const int ranks = std::max(grid_.degrees.tensor, grid_.degrees.context);
    const std::int64_t room = ordered_sum_room(ranks, saved.part.count.size());
    saved.received = arena.reserve<Real, 1>("routing_received", room);
    saved.received_counts = arena.reserve<int, 1>("routing_received_counts", room);
  }
  saved.mine = saved.part.layers();
  saved.statistics = saved.whole.layers();
  if (config_.form != Form::none) {
    saved.constant =
        arena.reserve<Real, 3>("balance_constant", couples_layers() ? 1 : saved.balanced,
                               per_sequence() ? shape.sequences : 1, experts_);
  }
  saved.tokens = shape.tokens * grid_.degrees.context;
  return saved;
}

template <class Real>
void BalanceLoss<Real>::sum_over_ranks(const Exec& exec, const Saved& saved) const {
  if (alone()) {
    return;
  }
  const auto sum = [&](const auto& part, const auto& whole, const auto& received) {
    using T = typename std::decay_t<decltype(part)>::value_type;
    const Tensor<T, 1> numbers(whole.data(), whole.size());
    Kokkos::deep_copy(exec, whole, part);
    ordered_sum<T>(exec, grid_.tensor, numbers, received);
    ordered_sum<T>(exec, grid_.context, numbers, received);
  };
  sum(saved.part.count, saved.whole.count, saved.received_counts);
  sum(saved.part.probability, saved.whole.probability, saved.received);
  sum(saved.part.square, saved.whole.square, saved.received);
}

// The losses are slope sum_t,e p_te C_e, hence d loss / d p_te = slope C_e.
template <class Real>
double BalanceLoss<Real>::slope(int tokens) const {
  if (config_.form == Form::none) {
    return 0.0;
  }
  const double layers = config_.form == Form::megatron ? 1.0 : layers_;
  return experts_ / (layers * tokens);
}

template <class Real>
Tensor<Real, 2> BalanceLoss<Real>::constant(const Saved& saved, int layer) const {
  const std::size_t index = couples_layers() ? 0 : layer;
  const auto& all = saved.constant;
  return Tensor<Real, 2>(all.data() + index * all.extent(1) * all.extent(2), all.extent(1),
                         all.extent(2));
}

// huggingface: C sums over the layers, in their order, from zero.
template <class Real>
void BalanceLoss<Real>::share_out(const Exec& exec, const Saved& saved, bool goes_on) const {
  sum_over_ranks(exec, saved);
  if (config_.form == Form::none) {
    return;
  }
  if (couples_layers() && !goes_on) {
    Kokkos::deep_copy(exec, saved.constant, Real(0));
  }
  const auto R = static_cast<double>(saved.constant.extent(1));
  const double choices = config_.form == Form::megatron ? experts_per_token_ : 1.0;
  const double layers = couples_layers() ? layers_ : 1.0;
  const auto scale = static_cast<Real>(R / (choices * layers * saved.tokens));
  for (int layer = 0; layer < saved.balanced; ++layer) {
    const auto C = constant(saved, layer);
    Kokkos::parallel_for("balance_loss::shares", Kokkos::RangePolicy<Exec>(exec, 0, experts_),
                         Shares<Real>{saved.statistics[layer].count, C, scale, couples_layers()});
    if (counts_steps()) {
      Kokkos::parallel_for("balance_loss::previous_shares", row_policy(exec, 1),
                           PreviousShares<Real>{counts_->previous, C, saved.first + layer});
    }
  }
}

template <class Real>
void BalanceLoss<Real>::forward(const Exec& exec, const Saved& saved, bool training,
                                const Tensor<double, 0>& balance,
                                const Tensor<double, 0>& router_z) const {
  if (empty()) {
    return;
  }
  for (int layer = saved.balanced - 1; layer >= 0; --layer) {
    const auto C = config_.form == Form::none ? Tensor<Real, 2>() : constant(saved, layer);
    Kokkos::parallel_for(
        "balance_loss::add", row_policy(exec, 1),
        AddLosses<Real>{saved.statistics[layer], C, static_cast<Real>(slope(saved.tokens)),
                        static_cast<Real>(1.0 / saved.tokens), balance, router_z});
    if (training && counts_steps()) {
      Kokkos::parallel_for(
          "balance_loss::count", Kokkos::RangePolicy<Exec>(exec, 0, experts_),
          AddCounts{saved.statistics[layer].count, counts_->step, saved.first + layer});
    }
  }
}

template <class Real>
BalanceGradient<Real> BalanceLoss<Real>::gradient(const Saved& saved, int layer,
                                                  double scale) const {
  BalanceGradient<Real> gradient;
  if (config_.form != Form::none) {
    gradient.constant = constant(saved, layer);
    gradient.factor = static_cast<Real>(scale * config_.coefficient * slope(saved.tokens));
  }
  gradient.z_factor = static_cast<Real>(scale * config_.router_z_loss * 2.0 / saved.tokens);
  return gradient;
}

template <class Real>
void BalanceLoss<Real>::end_step(const Exec& exec) const {
  if (counts_steps()) {
    Kokkos::deep_copy(exec, counts_->previous, counts_->step);
    Kokkos::deep_copy(exec, counts_->step, 0.0);
  }
}

template struct RoutingStatistics<float>;
template struct RoutingStatistics<double>;
template struct RoutingOfLayers<float>;
template struct RoutingOfLayers<double>;
template class BalanceLoss<float>;
template class BalanceLoss<double>;

}  // namespace qnext
