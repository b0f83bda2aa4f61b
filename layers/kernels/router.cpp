// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/router.hpp"

#include "core/math.hpp"
#include "core/team.hpp"

namespace qnext {
namespace {

// A team takes a token. The k-th choice is the largest probability behind the one before it in the
// order (probability falling, index rising), so that nothing has to be marked as taken.
template <class Real>
struct Route {
  Routing<Real> routing;
  bool renormalise;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const int E = routing.probabilities.extent_int(1);
    const int K = routing.selected.extent_int(1);
    Real* const p = &routing.probabilities(t, 0);
    Real* const weights = &routing.weights(t, 0);
    softmax(team, t, E, p);
    const Real sum = routing.given ? take_given(team, t, K, p) : select(team, t, E, K, p);
    team.team_barrier();
    const Real scale = renormalise ? Real(1) / sum : Real(1);
    for_each_in(team, K, [&](const int k) { weights[k] *= scale; });
  }

  // The sum of the chosen probabilities, which become the weights.
  KOKKOS_FUNCTION Real take_given(const RowTeam& team, int t, int K, const Real* p) const {
    Real sum = 0;
    for (int k = 0; k < K; ++k) {
      const Real chosen = p[routing.selected(t, k)];
      sum += chosen;
      Kokkos::single(Kokkos::PerTeam(team), [&] { routing.weights(t, k) = chosen; });
    }
    return sum;
  }

  KOKKOS_FUNCTION Real select(const RowTeam& team, int t, int E, int K, const Real* p) const {
    Real before = 2;
    int before_index = -1;
    Real sum = 0;
    for (int k = 0; k < K; ++k) {
      const Real value = max_over<Real>(team, E, Real(-1), [&](const int e) {
        const bool behind = p[e] < before || (p[e] == before && e > before_index);
        return behind ? p[e] : Real(-1);
      });
      const int found = -max_over<int>(team, E, -E, [&](const int e) {
        return p[e] == value && (value < before || e > before_index) ? -e : -E;
      });
      before = value;
      before_index = found < E ? found : k;  // NaN: any valid index
      sum += value;
      Kokkos::single(Kokkos::PerTeam(team), [&] {
        routing.selected(t, k) = before_index;
        routing.weights(t, k) = p[before_index];
      });
    }
    return sum;
  }

  KOKKOS_FUNCTION void softmax(const RowTeam& team, int t, int E, Real* p) const {
    const Real top = max_over<Real>(team, E, p[0], [&](const int e) { return p[e]; });
    team.team_barrier();
    for_each_in(team, E, [&](const int e) { p[e] = exp(p[e] - top); });
    team.team_barrier();
    const Real sum = sum_over<Real>(team, E, [&](const int e) { return p[e]; });
    team.team_barrier();
    const Real scale = Real(1) / sum;
    for_each_in(team, E, [&](const int e) { p[e] *= scale; });
    Kokkos::single(Kokkos::PerTeam(team), [&] { routing.log_sum(t) = top + log(sum); });
    team.team_barrier();
  }
};

// A team takes a token; the lanes share the experts, then the selected ones, which are different.
template <class Real>
struct RouteBackward {
  Routing<Real> routing;
  Tensor<const Real, 2> dweights;
  BalanceGradient<Real> balance;  // without elements: none
  Tensor<Real, 2> dlogits;
  bool renormalise;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const int T = dlogits.extent_int(0);
    const int E = dlogits.extent_int(1);
    const int K = dweights.extent_int(1);
    const Real* const p = &routing.probabilities(t, 0);
    Real* const dl = &dlogits(t, 0);
    Real sum = 0;
    Real dot = 0;
    for (int k = 0; k < K; ++k) {
      const Real selected = p[routing.selected(t, k)];
      sum += selected;
      dot += selected * dweights(t, k);
    }
    const Real scale = renormalise ? Real(1) / sum : Real(1);
    dot *= scale;
    const Real everywhere = balance.z_factor * routing.log_sum(t) - (renormalise ? Real(0) : dot);
    if (balance.constant.extent(0) != 0) {
      const int R = balance.constant.extent_int(0);
      const Real* const constant = &balance.constant(t / (T / R), 0);
      const Real mean = sum_over<Real>(team, E, [&](const int e) { return p[e] * constant[e]; });
      for_each_in(team, E, [&](const int e) {
        dl[e] = p[e] * (balance.factor * (constant[e] - mean) + everywhere);
      });
    } else {
      for_each_in(team, E, [&](const int e) { dl[e] = p[e] * everywhere; });
    }
    team.team_barrier();
    const Real subtracted = renormalise ? dot : Real(0);
    for_each_in(team, K, [&](const int k) {
      const int e = routing.selected(t, k);
      dl[e] += p[e] * scale * (dweights(t, k) - subtracted);
    });
  }
};

}  // namespace

template <class Real>
void route(const Exec& exec, bool renormalise, const Routing<Real>& routing) {
  Kokkos::parallel_for("router::route", row_policy(exec, routing.selected.extent_int(0)),
                       Route<Real>{routing, renormalise});
}

template <class Real>
void route_backward(const Exec& exec, bool renormalise, const Routing<Real>& routing,
                    const Tensor<const Real, 2>& dweights, const BalanceGradient<Real>* balance,
                    const Tensor<Real, 2>& dlogits) {
  const BalanceGradient<Real> gradient = balance != nullptr ? *balance : BalanceGradient<Real>{};
  Kokkos::parallel_for("router::backward", row_policy(exec, dlogits.extent_int(0)),
                       RouteBackward<Real>{routing, dweights, gradient, dlogits, renormalise});
}

#define QNEXT_INSTANTIATE(Real)                                                                  \
  template void route<Real>(const Exec&, bool, const Routing<Real>&);                            \
  template void route_backward<Real>(const Exec&, bool, const Routing<Real>&,                    \
                                     const Tensor<const Real, 2>&, const BalanceGradient<Real>*, \
                                     const Tensor<Real, 2>&);
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
