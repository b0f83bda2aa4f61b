// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/capacity.hpp"

#include "core/require.hpp"
#include "core/team.hpp"

#include <algorithm>
#include <cmath>

namespace qnext {
namespace {

// A thread takes a token. Rows of an expert are in token order, so the place of a choice in its
// sequence is its row less those of the sequences before, behind those of the ranks before.
template <class Real>
struct DropByPosition {
  Tensor<const int, 3> count;  // (R, S, E)
  int rank;
  Routing<Real> routing;
  ExpertRows rows;
  int limit;

  KOKKOS_FUNCTION void operator()(const int t) const {
    const int T = rows.place.extent_int(0);
    const int s = t / (T / count.extent_int(1));
    for (int k = 0; k < rows.place.extent_int(1); ++k) {
      const int e = routing.selected(t, k);
      int position = rows.place(t, k) - rows.offset(e);
      for (int earlier = 0; earlier < s; ++earlier) {
        position -= count(rank, earlier, e);
      }
      for (int before = 0; before < rank; ++before) {
        position += count(before, s, e);
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

// A team takes a choice and counts the rows of its expert, on all ranks, that come before it in the
// order (weight falling, token rising). Tokens of a sequence are earlier on ranks before.
template <class Real>
struct DropByProbability {
  SharedChoices<Real> shared;
  Routing<Real> routing;
  ExpertRows rows;
  int limit;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int T = rows.place.extent_int(0), K = rows.place.extent_int(1);
    const int R = shared.count.extent_int(0), S = shared.count.extent_int(1);
    const int t = team.league_rank() / K, k = team.league_rank() % K;
    const int e = routing.selected(t, k), s = t / (T / S);
    int all = 0;
    for (int r = 0; r < R; ++r) {
      all += shared.offset(r, e + 1) - shared.offset(r, e);
    }
    if (all <= limit) {
      return;
    }
    const int own = rows.place(t, k) - rows.offset(e);
    const Real own_weight = shared.weight(shared.offset(shared.rank, e) + own);
    int better = 0;
    for (int r = 0; r < R; ++r) {
      int earlier = own;  // rows of this rank that win where weights are equal
      if (r != shared.rank) {
        earlier = 0;
        for (int before = 0; before < s || (before == s && r < shared.rank); ++before) {
          earlier += shared.count(r, before, e);
        }
      }
      const Real* const weight = shared.weight.data() + shared.offset(r, e);
      better +=
          sum_over<int>(team, shared.offset(r, e + 1) - shared.offset(r, e), [&](const int i) {
            return weight[i] > own_weight || (weight[i] == own_weight && i < earlier) ? 1 : 0;
          });
    }
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
void weights_by_row(const Exec& exec, const Routing<Real>& routing, const ExpertRows& rows,
                    const Tensor<Real, 1>& row_weight) {
  const Tensor<const Real, 1> weights(routing.weights.data(), routing.weights.size());
  Kokkos::parallel_for("capacity::weights_by_row",
                       Kokkos::RangePolicy<Exec>(exec, 0, rows.place.size()),
                       WeightsByRow<Real>{weights, rows.flat_place(), row_weight});
}

template <class Real>
void drop_beyond(const Exec& exec, const Capacity& capacity, const SharedChoices<Real>& shared,
                 const Routing<Real>& routing, const ExpertRows& rows) {
  const int T = rows.place.extent_int(0), K = rows.place.extent_int(1);
  const int S = shared.count.extent_int(1), E = shared.count.extent_int(2);
  if (capacity.rule == Capacity::Rule::position) {
    const int limit = capacity.limit(shared.tokens / S, E, K);
    Kokkos::parallel_for("capacity::by_position", Kokkos::RangePolicy<Exec>(exec, 0, T),
                         DropByPosition<Real>{shared.count, shared.rank, routing, rows, limit});
  } else if (capacity.rule == Capacity::Rule::probability) {
    const int limit = capacity.limit(shared.tokens, E, K);
    Kokkos::parallel_for("capacity::by_probability", row_policy(exec, T * K),
                         DropByProbability<Real>{shared, routing, rows, limit});
  }
}

#define QNEXT_INSTANTIATE(Real)                                                             \
  template void weights_by_row<Real>(const Exec&, const Routing<Real>&, const ExpertRows&,  \
                                     const Tensor<Real, 1>&);                               \
  template void drop_beyond<Real>(const Exec&, const Capacity&, const SharedChoices<Real>&, \
                                  const Routing<Real>&, const ExpertRows&);
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
