// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/causal_conv.hpp"

#include "core/math.hpp"
#include "layers/kernels/causal_conv_columns.hpp"

namespace qnext {
namespace {

using namespace causal_conv;

constexpr int forward_block = 8;  // tokens

// A team takes a block of tokens of one key head and walks along it, lanes along the columns.
template <class Storage, int Taps>
struct ConvForward {
  using Real = Accum<Storage>;

  CausalConvInput<Storage> in;
  QueryKeyValue<Storage> out;

  void launch(const Exec& exec) const {
    const int W = in.layout.convolved();
    const int bytes = static_cast<int>(Scratch<Real, 1>::shmem_size(W) +
                                       Scratch<Storage, 1>::shmem_size((Taps - 1) * W));
    const int league = blocks(in.qkvz.extent_int(0), forward_block) * in.layout.G;
    RowPolicy policy = row_policy(exec, league);
    const int level = bytes > RowPolicy::scratch_size_max(0) ? 1 : 0;
    Kokkos::parallel_for("causal_conv::forward",
                         policy.set_scratch_size(level, Kokkos::PerTeam(bytes)),
                         WithLevel{*this, level});
  }

  struct WithLevel {
    ConvForward kernel;
    int level;
    KOKKOS_FUNCTION void operator()(const RowTeam& team) const { kernel.run(team, level); }
  };

  KOKKOS_FUNCTION void run(const RowTeam& team, int level) const {
    const int W = in.layout.convolved(), G = in.layout.G;
    const int T = in.qkvz.extent_int(0);
    const int g = team.league_rank() % G;
    const int first = team.league_rank() / G * forward_block;
    const int last = first + forward_block < T ? first + forward_block : T;
    const Scratch<Real, 1> activated(team.team_scratch(level), W);
    const Scratch<Storage, 1> tail(team.team_scratch(level), (Taps - 1) * W);
    const Real* const weights = &in.weight(g, 0, 0);
    Real* const y = activated.data();
    int n = in.documents.document(first);
    for (int t = first; t < last; ++t) {
      if (t == first || t == in.documents.begin(n + 1)) {
        n = in.documents.document(t);
        if (t - in.documents.begin(n) < Taps - 1) {
          load_tail<Taps>(team, in, n, g, tail.data());
        }
      }
      const auto window = window_of<Taps>(in, t, in.documents.begin(n), g, tail.data());
      for_each_in(team, W, [&](const int c) { y[c] = silu(convolve(window, weights, W, c)); });
      team.team_barrier();
      store_columns<Storage>(team, in.layout, t, g, y, out);
      team.team_barrier();
    }
  }
};

}  // namespace

template <class Storage>
void causal_conv_forward(const Exec& exec, const CausalConvInput<Storage>& in,
                         const QueryKeyValue<Storage>& out) {
  with_taps(in.weight.extent_int(1), [&](auto taps) {
    ConvForward<Storage, taps>{in, out}.launch(exec);
  });
}

#define QNEXT_INSTANTIATE(Storage)                                                         \
  template void causal_conv_forward<Storage>(const Exec&, const CausalConvInput<Storage>&, \
                                             const QueryKeyValue<Storage>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
