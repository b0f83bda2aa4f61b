// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/causal_conv_step.hpp"

namespace qnext {
namespace {

// f(column, channel) for the convolved columns of key head g.
template <class F>
KOKKOS_FORCEINLINE_FUNCTION void for_each_column(const RowTeam& team,
                                                 const GroupedProjection& layout, int g,
                                                 const F& f) {
  const int K = layout.K, keys = layout.G * K, values = layout.R * layout.V;
  for_each_in(team, K, [&](const int i) { f(i, g * K + i); });
  for_each_in(team, K, [&](const int i) { f(K + i, keys + g * K + i); });
  for_each_in(team, values, [&](const int i) { f(2 * K + i, 2 * keys + g * values + i); });
}

// A team takes the columns of one key head of one document and walks its tokens. A lane owns its
// columns up to the norms.
template <class Storage>
struct Columns {
  using Real = Accum<Storage>;

  CausalConvStep<Storage> in;

  int taps() const { return in.weight.extent_int(2); }

  void launch(const Exec& exec) const {
    const int W = in.layout.convolved();
    const auto bytes = Scratch<Real, 1>::shmem_size((taps() + 1) * W) +
                       Scratch<Storage, 1>::shmem_size((taps() - 1) * W);
    RowPolicy policy = row_policy(exec, in.documents.count * in.layout.G);
    const int level = static_cast<int>(bytes) > RowPolicy::scratch_size_max(0) ? 1 : 0;
    Kokkos::parallel_for("causal_conv::step",
                         policy.set_scratch_size(level, Kokkos::PerTeam(static_cast<int>(bytes))),
                         WithLevel{*this, level});
  }

  struct WithLevel {
    Columns kernel;
    int level;
    KOKKOS_FUNCTION void operator()(const RowTeam& team) const { kernel.run(team, level); }
  };

  KOKKOS_FUNCTION void run(const RowTeam& team, int level) const {
    const int W = in.layout.convolved(), taps = in.weight.extent_int(2);
    const int n = team.league_rank() / in.layout.G, g = team.league_rank() % in.layout.G;
    const Scratch<Real, 1> reals(team.team_scratch(level), (taps + 1) * W);
    const Scratch<Storage, 1> inputs(team.team_scratch(level), (taps - 1) * W);
    Real* const weights = reals.data();
    Real* const y = weights + taps * W;
    Storage* const before = inputs.data();  // (taps - 1, W), oldest first
    const int arrives = in.documents.initial_row(n), leaves = in.documents.final_row(n);
    for_each_column(team, in.layout, g, [&](const int c, const int channel) {
      for (int j = 0; j < taps; ++j) {
        weights[j * W + c] = static_cast<Real>(in.weight(channel, 0, j));
      }
      for (int j = 0; j < taps - 1; ++j) {
        before[j * W + c] = in.tails(arrives, j, channel);
      }
    });
    team.team_barrier();
    const int begin = in.documents.begin(n), end = in.documents.begin(n + 1);
    for (int t = begin; t < end; ++t) {
      convolve(team, &in.qkvz(t, g * in.layout.block()), weights, before, y);
      team.team_barrier();
      store_columns<Storage>(team, in.layout, t, g, y, in.out);
      if (in.keep == Keep::each || t + 1 == end) {
        const int row = in.keep == Keep::each ? leaves + t - begin : leaves;
        for_each_column(team, in.layout, g, [&](const int c, const int channel) {
          for (int j = 0; j < taps - 1; ++j) {
            in.tails(row, j, channel) = before[j * W + c];
          }
        });
      }
      team.team_barrier();
    }
  }

  // y = silu(sum_j w_j u_j), and the inputs move on by one token.
  KOKKOS_FORCEINLINE_FUNCTION void convolve(const RowTeam& team, const Storage* input,
                                            const Real* weights, Storage* before, Real* y) const {
    const int W = in.layout.convolved(), last = in.weight.extent_int(2) - 1;
    for_each_in(team, W, [&](const int c) { y[c] = 0; });
    for (int j = 0; j < last; ++j) {
      for_each_in(team, W, [&](const int c) {
        y[c] += weights[j * W + c] * static_cast<Real>(before[j * W + c]);
        before[j * W + c] = j + 1 < last ? before[(j + 1) * W + c] : input[c];
      });
    }
    for_each_in(team, W, [&](const int c) {
      y[c] = silu(y[c] + weights[last * W + c] * static_cast<Real>(input[c]));
    });
  }
};

}  // namespace

template <class Storage>
void CausalConvStep<Storage>::launch(const Exec& exec) const {
  Columns<Storage>{*this}.launch(exec);
}

template struct CausalConvStep<bf16>;
template struct CausalConvStep<float>;
template struct CausalConvStep<double>;

}  // namespace qnext
