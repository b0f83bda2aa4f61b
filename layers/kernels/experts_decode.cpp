// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/experts_decode.hpp"

#include "core/math.hpp"
#include "core/team.hpp"

namespace qnext {
namespace {

// Rows of a matrix that a team takes: several on a CPU, so that a thread starts less often, one on
// a GPU, so that there are enough teams.
constexpr int rows_per_team = device_backend ? 1 : 16;

int teams(int rows) {
  return (rows + rows_per_team - 1) / rows_per_team;
}

// result[i] = sum_j row[i][j] x[j] for N rows at once: on a CPU N independent chains of vector
// sums, one of which alone would wait for each addition. The order of a sum depends on n alone.
template <int N, class Real, class Row, class X>
KOKKOS_FORCEINLINE_FUNCTION void dots(const RowTeam& team, int n, const Row* const (&row)[N],
                                      const X* x, Real (&result)[N]) {
  if constexpr (device_backend) {
    for (int i = 0; i < N; ++i) {
      result[i] = sum_over<Real>(team, n, [&](const int j) {
        return static_cast<Real>(row[i][j]) * static_cast<Real>(x[j]);
      });
    }
  } else {
    constexpr int lanes = 16;
    Real partial[N][lanes] = {};
    int j = 0;
    for (; j + lanes <= n; j += lanes) {
      for (int i = 0; i < N; ++i) {
        for (int lane = 0; lane < lanes; ++lane) {
          partial[i][lane] += static_cast<Real>(row[i][j + lane]) * static_cast<Real>(x[j + lane]);
        }
      }
    }
    for (int i = 0; i < N; ++i) {
      Real rest = 0;
      for (int tail = j; tail < n; ++tail) {
        rest += static_cast<Real>(row[i][tail]) * static_cast<Real>(x[tail]);
      }
      for (int half = lanes / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; ++lane) {
          partial[i][lane] += partial[i][lane + half];
        }
      }
      result[i] = partial[i][0] + rest;
    }
  }
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
      const Storage* const direction[1] = {in.direction.data()};
      Real dot[1];
      dots<1, Real>(team, D, direction, x, dot);
      Kokkos::single(Kokkos::PerTeam(team), [&] { in.shared_factor(t) = sigmoid(dot[0]); });
      return;
    }
    for (int e = first; e < min(first + rows_per_team, E); ++e) {
      const Real* const row[1] = {&in.router(e, 0)};
      Real dot[1];
      dots<1, Real>(team, D, row, x, dot);
      Kokkos::single(Kokkos::PerTeam(team), [&] { logits(t, e) = dot[0]; });
    }
  }
};

// Teams (t, block of hidden numbers).
template <class Storage>
struct Hidden {
  using Real = Accum<Storage>;

  ExpertsDecode<Storage> in;
  int teams_per_token;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int count = in.hidden.extent_int(1);
    const int D = in.x.extent_int(1);
    const int F = in.down.extent_int(2);
    const int K = in.selected.extent_int(1);
    const int t = team.league_rank() / teams_per_token;
    const int first = team.league_rank() % teams_per_token * rows_per_team;
    for (int i = first; i < min(first + rows_per_team, count); ++i) {
      const int k = i / F;
      const Storage* row[2];
      Real factor;
      if (k < K) {
        row[0] = &in.gate_up(in.selected(t, k), i % F, 0);
        row[1] = row[0] + std::int64_t{F} * D;
        factor = in.weights(t, k);
      } else {
        row[0] = &in.shared_gate(i - K * F, 0);
        row[1] = &in.shared_up(i - K * F, 0);
        factor = in.shared_factor(t);
      }
      Real projected[2];
      dots<2, Real>(team, D, {row[0], row[1]}, &in.x(t, 0), projected);
      Kokkos::single(Kokkos::PerTeam(team),
                     [&] { in.hidden(t, i) = factor * silu(projected[0]) * projected[1]; });
    }
  }
};

// Teams (t, block of columns of y): the sum over k in its order, then the shared expert.
template <class Storage>
struct Output {
  using Real = Accum<Storage>;
  static constexpr int columns = device_backend ? 1 : 4;

  ExpertsDecode<Storage> in;
  Tensor<Storage, 2> y;
  int teams_per_token;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank() / teams_per_token;
    const int first = team.league_rank() % teams_per_token * rows_per_team;
    const int last = min(first + rows_per_team, y.extent_int(1));
    for (int d = first; d < last; d += columns) {
      column_block(team, t, d, last);
    }
  }

  KOKKOS_FORCEINLINE_FUNCTION void column_block(const RowTeam& team, int t, int d, int last) const {
    const int F = in.down.extent_int(2);
    const int K = in.selected.extent_int(1);
    const int G = in.hidden.extent_int(1) - K * F;
    Real sum[columns] = {};
    for (int k = 0; k < K; ++k) {
      add(team, &in.down(in.selected(t, k), d, 0), F, last - d, &in.hidden(t, k * F), sum);
    }
    if (G > 0) {
      add(team, &in.shared_down(d, 0), G, last - d, &in.hidden(t, K * F), sum);
    }
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      for (int c = 0; c < columns && d + c < last; ++c) {
        y(t, d + c) = Storage(sum[c]);
      }
    });
  }

  // The rows from `matrix` on, n long; behind the last one that one again.
  KOKKOS_FORCEINLINE_FUNCTION static void add(const RowTeam& team, const Storage* matrix, int n,
                                              int rows, const Real* x, Real (&sum)[columns]) {
    const Storage* row[columns];
    for (int c = 0; c < columns; ++c) {
      row[c] = matrix + std::int64_t{c < rows ? c : rows - 1} * n;
    }
    Real dot[columns];
    dots<columns, Real>(team, n, row, x, dot);
    for (int c = 0; c < columns; ++c) {
      sum[c] += dot[c];
    }
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
void ExpertsDecode<Storage>::compute(const Exec& exec, const Tensor<Storage, 2>& y) const {
  const int T = x.extent_int(0);
  const int inner = teams(hidden.extent_int(1));
  const int outer = teams(y.extent_int(1));
  Kokkos::parallel_for("experts_decode::hidden", row_policy(exec, T * inner),
                       Hidden<Storage>{*this, inner});
  Kokkos::parallel_for("experts_decode::output", row_policy(exec, T * outer),
                       Output<Storage>{*this, y, outer});
}

template struct ExpertsDecode<bf16>;
template struct ExpertsDecode<float>;
template struct ExpertsDecode<double>;

}  // namespace qnext
