// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/capacity.hpp"

#include "core/require.hpp"
#include "core/team.hpp"

#include <algorithm>
#include <cmath>

namespace qnext {
namespace {

// A thread takes a token. Rows of an expert are in token order, so the place of a choice in its
// sequence is its row less those of the sequences before.
template <class Real>
struct DropByPosition {
  Tensor<const int, 2> sequence_count;  // (S, E)
  Routing<Real> routing;
  ExpertRows rows;
  int limit;

  KOKKOS_FUNCTION void operator()(const int t) const {
    const int T = rows.place.extent_int(0);
    const int s = t / (T / sequence_count.extent_int(0));
    for (int k = 0; k < rows.place.extent_int(1); ++k) {
      const int e = routing.selected(t, k);
      int position = rows.place(t, k) - rows.offset(e);
      for (int earlier = 0; earlier < s; ++earlier) {
        position -= sequence_count(earlier, e);
      }
      if (position >= limit) {
        routing.weights(t, k) = 0;
        rows.place(t, k) = -1;
      }
    }
  }
};

template <class Real>
struct WeightsByRow {
  Tensor<const Real, 1> weight;  // (T K)
  Tensor<const int, 1> place;    // (T K)
  Tensor<Real, 1> row_weight;    // (T K)

  KOKKOS_FUNCTION void operator()(const int c) const { row_weight(place(c)) = weight(c); }
};

// A team takes a choice and counts the rows of its expert that come before it in the order (weight
// falling, token rising).
template <class Real>
struct DropByProbability {
  Tensor<const Real, 1> row_weight;  // (T K)
  Routing<Real> routing;
  ExpertRows rows;
  int limit;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int K = rows.place.extent_int(1);
    const int t = team.league_rank() / K;
    const int k = team.league_rank() % K;
    const int e = routing.selected(t, k);
    const int first = rows.offset(e);
    const int count = rows.offset(e + 1) - first;
    if (count <= limit) {
      return;
    }
    const int own = rows.place(t, k) - first;
    const Real* const weight = row_weight.data() + first;
    const Real own_weight = weight[own];
    const int better = sum_over<int>(team, count, [&](const int r) {
      return weight[r] > own_weight || (weight[r] == own_weight && r < own) ? 1 : 0;
    });
    team.team_barrier();
    if (better >= limit) {
      Kokkos::single(Kokkos::PerTeam(team), [&] {
        routing.weights(t, k) = 0;
        rows.place(t, k) = -1;
      });
    }
  }
};

}  // namespace

int Capacity::limit(int tokens, int experts, int experts_per_token) const {
  const double balanced = static_cast<double>(tokens) * experts_per_token / experts;
  switch (rule) {
    case Rule::dropless:
      return tokens;
    case Rule::position:
      return static_cast<int>(std::max(std::ceil(balanced) * factor, factor));
    case Rule::probability:
      return static_cast<int>(std::ceil(balanced * factor));
  }
  require(false, "capacity: unknown rule");
  return 0;
}

template <class Real>
void drop_beyond(const Exec& exec, const Capacity& capacity,
                 const Tensor<const int, 2>& sequence_count, const Routing<Real>& routing,
                 const ExpertRows& rows, const Tensor<Real, 1>& row_weight) {
  const int T = rows.place.extent_int(0);
  const int K = rows.place.extent_int(1);
  const int E = rows.offset.extent_int(0) - 1;
  if (capacity.rule == Capacity::Rule::position) {
    const int limit = capacity.limit(T / sequence_count.extent_int(0), E, K);
    Kokkos::parallel_for("capacity::by_position", Kokkos::RangePolicy<Exec>(exec, 0, T),
                         DropByPosition<Real>{sequence_count, routing, rows, limit});
  } else if (capacity.rule == Capacity::Rule::probability) {
    const Tensor<const Real, 1> weights(routing.weights.data(), routing.weights.size());
    Kokkos::parallel_for("capacity::weights_by_row", Kokkos::RangePolicy<Exec>(exec, 0, T * K),
                         WeightsByRow<Real>{weights, rows.flat_place(), row_weight});
    Kokkos::parallel_for(
        "capacity::by_probability", row_policy(exec, T * K),
        DropByProbability<Real>{row_weight, routing, rows, capacity.limit(T, E, K)});
  }
}

#define QNEXT_INSTANTIATE(Real)                                                              \
  template void drop_beyond<Real>(const Exec&, const Capacity&, const Tensor<const int, 2>&, \
                                  const Routing<Real>&, const ExpertRows&,                   \
                                  const Tensor<Real, 1>&);
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
