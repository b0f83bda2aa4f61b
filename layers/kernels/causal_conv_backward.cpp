// SPDX-License-Identifier: Apache-2.0
#include "core/math.hpp"
#include "layers/kernels/causal_conv.hpp"
#include "layers/kernels/causal_conv_columns.hpp"

namespace qnext {
namespace {

using namespace causal_conv;

constexpr int backward_block = 32;  // tokens

// The gradient of p, token by token, in a ring of `taps` rows; the gradient of an input is complete
// taps - 1 tokens later, so a team walks that far beyond its block. What belongs to inputs before
// the document goes to the gradient of its tail. Each team owns its row of partial sums of dw.
template <class Storage, int Taps>
struct ConvBackward {
  using Real = Accum<Storage>;

  CausalConvInput<Storage> in;
  QueryKeyValue<Storage> dout;
  Tensor<const Storage, 3> dfinal;
  Tensor<Storage, 2> dqkvz;
  Tensor<Storage, 3> dinitial;
  Tensor<Real, 4> partial;

  // Scratch of a team.
  struct Rows {
    const Real* weights;  // (taps, W)
    Real* ring;           // (taps, W)
    Real* y;              // (W)
    Real* slope;          // (W)  of SiLU at p
    Storage* tail;        // (taps - 1, W)
  };

  void launch(const Exec& exec) const {
    const int W = in.layout.convolved();
    const int bytes = static_cast<int>(Scratch<Real, 1>::shmem_size((Taps + 2) * W) +
                                       Scratch<Storage, 1>::shmem_size((Taps - 1) * W));
    const int league = blocks(in.qkvz.extent_int(0), backward_block) * in.layout.G;
    RowPolicy policy = row_policy(exec, league);
    const int level = bytes > RowPolicy::scratch_size_max(0) ? 1 : 0;
    Kokkos::parallel_for("causal_conv::backward",
                         policy.set_scratch_size(level, Kokkos::PerTeam(bytes)),
                         WithLevel{*this, level});
  }

  struct WithLevel {
    ConvBackward kernel;
    int level;
    KOKKOS_FUNCTION void operator()(const RowTeam& team) const { kernel.run(team, level); }
  };

  KOKKOS_FUNCTION void run(const RowTeam& team, int level) const {
    const int W = in.layout.convolved(), G = in.layout.G, T = in.qkvz.extent_int(0);
    const int g = team.league_rank() % G;
    const int first = team.league_rank() / G * backward_block;
    const int last = first + backward_block < T ? first + backward_block : T;
    const Scratch<Real, 1> reals(team.team_scratch(level), (Taps + 2) * W);
    const Scratch<Storage, 1> tail(team.team_scratch(level), (Taps - 1) * W);
    const Rows rows{&in.weight(g, 0, 0), reals.data(), reals.data() + Taps * W,
                    reals.data() + (Taps + 1) * W, tail.data()};
    Real* const dweight = &partial(team.league_rank() / G, g, 0, 0);
    for_each_in(team, Taps * W, [&](const int i) { dweight[i] = 0; });
    team.team_barrier();
    for (int begin = first; begin < last;) {
      const int n = in.documents.document(begin);
      const int of_document = in.documents.begin(n + 1);
      const int end = of_document < last ? of_document : last;
      walk(team, n, g, begin, end, rows, dweight);
      begin = end;
    }
  }

  // Tokens [first, last) of document n.
  KOKKOS_FUNCTION void walk(const RowTeam& team, int n, int g, int first, int last,
                            const Rows& rows, Real* dweight) const {
    const int W = in.layout.convolved();
    const int begin = in.documents.begin(n), end = in.documents.begin(n + 1);
    load_tail<Taps>(team, in, n, g, rows.tail);
    for_each_in(team, Taps * W, [&](const int i) { rows.ring[i] = 0; });
    team.team_barrier();
    const int complete_from = first == begin ? begin - Taps + 1 : first;
    for (int t = first; t < last + Taps - 1; ++t) {
      Real* const dp = rows.ring + (t - first) % Taps * W;
      if (t < end) {
        const auto window = window_of<Taps>(in, t, begin, g, rows.tail);
        preactivation_gradient(team, t, g, window, rows, dp);
        if (t < last) {
          for_each_in(team, W, [&](const int c) {
            for (int j = 0; j < Taps; ++j) {
              dweight[j * W + c] += dp[c] * static_cast<Real>(window.input[j][c]);
            }
          });
        }
      } else {
        for_each_in(team, W, [&](const int c) { dp[c] = 0; });
      }
      if (t - Taps + 1 >= complete_from) {
        store_input_gradient(team, n, g, t - Taps + 1, t - first, rows);
      }
    }
    team.team_barrier();
  }

  // For q and k with y = silu(p), r = 1 / sqrt(|y|^2 + epsilon):  dy = r (d - y r^2 (d . y)).
  KOKKOS_FORCEINLINE_FUNCTION void preactivation_gradient(const RowTeam& team, int t, int g,
                                                          const Window<Taps, Storage>& window,
                                                          const Rows& rows, Real* dp) const {
    const int W = in.layout.convolved(), K = in.layout.K, R = in.layout.R;
    Real* const y = rows.y;
    Real* const slope = rows.slope;
    for_each_in(team, W, [&](const int c) {
      const Real p = convolve(window, rows.weights, W, c);
      const Real s = sigmoid(p);
      y[c] = p * s;
      slope[c] = s * (Real(1) + p * (Real(1) - s));
    });
    team.team_barrier();
    for (int part = 0; part < 2; ++part) {
      const Storage* const d = part == 0 ? &dout.q(t, g, 0) : &dout.k(t, g, 0);
      const Real* const own = y + part * K;
      const Real scale = part == 0 ? Real(1) / sqrt(static_cast<Real>(K)) : Real(1);
      const Real r = inverse_length(team, own, K);
      const Real along =
          sum_over<Real>(team, K, [&](const int c) { return static_cast<Real>(d[c]) * own[c]; });
      for_each_in(team, K, [&](const int c) {
        const Real dy = r * (static_cast<Real>(d[c]) - own[c] * (r * r * along));
        dp[part * K + c] = scale * dy * slope[part * K + c];
      });
    }
    const Storage* const d = &dout.v(t, g * R, 0);
    for_each_in(team, R * in.layout.V,
                [&](const int c) { dp[2 * K + c] = static_cast<Real>(d[c]) * slope[2 * K + c]; });
    team.team_barrier();
  }

  // du_t = sum_j w_j dp_{t + taps - 1 - j}, and what the next piece sends back to its tail.
  // `newest` counts the rows of the ring: the last of them is that of token t + taps - 1.
  KOKKOS_FORCEINLINE_FUNCTION void store_input_gradient(const RowTeam& team, int n, int g, int t,
                                                        int newest, const Rows& rows) const {
    const int W = in.layout.convolved();
    const int begin = in.documents.begin(n), end = in.documents.begin(n + 1);
    const int arrives = in.documents.initial_row(n), leaves = in.documents.final_row(n);
    const bool in_tail = t < begin;
    if (in_tail && (dinitial.extent(0) == 0 || arrives < 0)) {
      return;
    }
    const Real* dp[Taps];
    for (int j = 0; j < Taps; ++j) {
      dp[j] = rows.ring + (newest + Taps - j) % Taps * W;
    }
    const auto gradient = [&](const int c) {
      Real du = 0;
      for (int j = 0; j < Taps; ++j) {
        du += rows.weights[j * W + c] * dp[j][c];
      }
      return du;
    };
    const int final_row = t - end + Taps - 1;
    const bool returned = final_row >= 0 && dfinal.extent(0) != 0 && leaves >= 0;
    if (!in_tail && !returned) {
      Storage* const target = &dqkvz(t, g * in.layout.block());
      for_each_in(team, W, [&](const int c) { target[c] = Storage(gradient(c)); });
      return;
    }
    for_each_in(team, W, [&](const int c) {
      const int channel = in.layout.channel(g, c);
      const Real du = gradient(c) +
                      (returned ? static_cast<Real>(dfinal(leaves, final_row, channel)) : Real(0));
      if (in_tail) {
        dinitial(arrives, t - begin + Taps - 1, channel) = Storage(du);
      } else {
        dqkvz(t, g * in.layout.block() + c) = Storage(du);
      }
    });
  }
};

}  // namespace

int causal_conv_partial_blocks(int T) {
  return blocks(T, backward_block);
}

template <class Storage>
void causal_conv_backward(const Exec& exec, const CausalConvInput<Storage>& in,
                          const QueryKeyValue<Storage>& dout,
                          const Tensor<const Storage, 3>& dfinal, const Tensor<Storage, 2>& dqkvz,
                          const Tensor<Storage, 3>& dinitial,
                          const Tensor<Accum<Storage>, 4>& partial) {
  with_taps(in.weight.extent_int(1), [&](auto taps) {
    ConvBackward<Storage, taps>{in, dout, dfinal, dqkvz, dinitial, partial}.launch(exec);
  });
}

#define QNEXT_INSTANTIATE(Storage)                                                           \
  template void causal_conv_backward<Storage>(                                               \
      const Exec&, const CausalConvInput<Storage>&, const QueryKeyValue<Storage>&,           \
      const Tensor<const Storage, 3>&, const Tensor<Storage, 2>&, const Tensor<Storage, 3>&, \
      const Tensor<Accum<Storage>, 4>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
