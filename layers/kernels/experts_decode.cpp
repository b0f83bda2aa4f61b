// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/experts_decode.hpp"

#include "core/dot.hpp"
#include "core/math.hpp"
#include "core/team.hpp"

namespace qnext {
namespace {

// Rows of a matrix that a team takes: several on a CPU, so that a thread starts less often, one on
// a GPU, so that there are enough teams.
constexpr int rows_per_team = device_backend ? 1 : 16;

KOKKOS_INLINE_FUNCTION int teams(int rows) {
  return (rows + rows_per_team - 1) / rows_per_team;
}

// Teams (t, block of experts), and one more for each token where there is a shared expert.
template <class Storage>
struct Logits {
  using Real = Accum<Storage>;

  ExpertsDecode<Storage> in;
  Tensor<Real, 2> logits;
  int teams_per_token;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int E = logits.extent_int(1);
    const int D = in.x.extent_int(1);
    const int t = team.league_rank() / teams_per_token;
    const int first = team.league_rank() % teams_per_token * rows_per_team;
    const Storage* const x = &in.x(t, 0);
    if (first >= E) {
      const Real projected = dot<Real>(team, D, in.direction.data(), x);
      Kokkos::single(Kokkos::PerTeam(team), [&] { in.shared_factor(t) = sigmoid(projected); });
      return;
    }
    const int rows = min(rows_per_team, E - first);
    Real sum[rows_per_team];
    dot_rows(team, rows, D, &in.router(first, 0), x, sum);
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      for (int i = 0; i < rows; ++i) {
        logits(t, first + i) = sum[i];
      }
    });
  }
};

// Teams (t, block of hidden numbers of one expert); the shared expert comes last.
template <class Storage>
struct Hidden {
  using Real = Accum<Storage>;

  ExpertsDecode<Storage> in;

  KOKKOS_INLINE_FUNCTION int teams_per_expert() const { return teams(in.down.extent_int(2)); }
  KOKKOS_INLINE_FUNCTION int teams_per_token() const {
    const int F = in.down.extent_int(2), K = in.selected.extent_int(1);
    return K * teams_per_expert() + teams(in.hidden.extent_int(1) - K * F);
  }

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int D = in.x.extent_int(1), F = in.down.extent_int(2), K = in.selected.extent_int(1);
    const int t = team.league_rank() / teams_per_token();
    const int block = team.league_rank() % teams_per_token();
    const int k = min(block / teams_per_expert(), K);
    const int first = (block - k * teams_per_expert()) * rows_per_team;
    const bool routed = k < K;
    const int rows = min(rows_per_team, (routed ? F : in.hidden.extent_int(1) - K * F) - first);
    const Storage* const x = &in.x(t, 0);
    const Storage* const gate =
        routed ? &in.gate_up(in.selected(t, k), first, 0) : &in.shared_gate(first, 0);
    const Storage* const up = routed ? gate + std::int64_t{F} * D : &in.shared_up(first, 0);
    const Real factor = routed ? in.weights(t, k) : in.shared_factor(t);
    Real opened[rows_per_team], carried[rows_per_team];
    dot_rows(team, rows, D, gate, x, opened);
    dot_rows(team, rows, D, up, x, carried);
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      for (int i = 0; i < rows; ++i) {
        in.hidden(t, k * F + first + i) = factor * (silu(opened[i]) * carried[i]);
      }
    });
  }
};

// Teams (t, block of columns of y): the sum over k in its order, then the shared expert.
template <class Storage>
struct Output {
  using Real = Accum<Storage>;

  ExpertsDecode<Storage> in;
  Tensor<Storage, 2> y;
  int teams_per_token;
  bool add;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int D = y.extent_int(1);
    const int F = in.down.extent_int(2);
    const int K = in.selected.extent_int(1);
    const int G = in.hidden.extent_int(1) - K * F;
    const int t = team.league_rank() / teams_per_token;
    const int first = team.league_rank() % teams_per_token * rows_per_team;
    const int rows = min(rows_per_team, D - first);
    Real sum[rows_per_team] = {}, term[rows_per_team];
    for (int k = 0; k < K; ++k) {
      dot_rows(team, rows, F, &in.down(in.selected(t, k), first, 0), &in.hidden(t, k * F), term);
      for (int i = 0; i < rows; ++i) {
        sum[i] += term[i];
      }
    }
    if (G > 0) {
      dot_rows(team, rows, G, &in.shared_down(first, 0), &in.hidden(t, K * F), term);
      for (int i = 0; i < rows; ++i) {
        sum[i] += term[i];
      }
    }
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      for (int i = 0; i < rows; ++i) {
        Storage& element = y(t, first + i);
        element = Storage(add ? static_cast<Real>(element) + sum[i] : sum[i]);
      }
    });
  }
};

}  // namespace

template <class Storage>
void ExpertsDecode<Storage>::logits(const Exec& exec, const Tensor<Real, 2>& logits) const {
  const int shared = direction.extent(0) != 0 ? 1 : 0;
  const int count = teams(logits.extent_int(1)) + shared;
  Kokkos::parallel_for("experts_decode::logits", row_policy(exec, x.extent_int(0) * count),
                       Logits<Storage>{*this, logits, count});
}

template <class Storage>
void ExpertsDecode<Storage>::compute(const Exec& exec, const Tensor<Storage, 2>& y,
                                     Write write) const {
  const int T = x.extent_int(0);
  const Hidden<Storage> inner{*this};
  const int outer = teams(y.extent_int(1));
  Kokkos::parallel_for("experts_decode::hidden", row_policy(exec, T * inner.teams_per_token()),
                       inner);
  Kokkos::parallel_for("experts_decode::output", row_policy(exec, T * outer),
                       Output<Storage>{*this, y, outer, write == Write::add});
}

template struct ExpertsDecode<bf16>;
template struct ExpertsDecode<float>;
template struct ExpertsDecode<double>;

}  // namespace qnext
