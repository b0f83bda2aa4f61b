// SPDX-License-Identifier: Apache-2.0
#include "layers/causal_conv.hpp"

#include "core/math.hpp"
#include "core/require.hpp"
#include "core/team.hpp"
#include "layers/kernels/causal_conv_step.hpp"

#include <cmath>
#include <type_traits>

namespace qnext {
namespace {

// Tokens of a block. The blocks of all key heads for the same tokens follow each other: few enough
// tokens, and the caches see a handful of rows that are read from end to end.
constexpr int forward_block = 8;
constexpr int backward_block = 32;
constexpr int most_taps = 6;

int blocks(int T, int tokens) {
  return (T + tokens - 1) / tokens;
}

// What a team sees: the convolved columns of one key head, W of them, for a block of tokens.
template <class Storage, int Taps>
struct Columns {
  using Real = Accum<Storage>;

  Documents documents;
  GroupedProjection layout;
  Tensor<const Storage, 2> qkvz;
  Tensor<const Storage, 3> initial;
  Tensor<const Real, 3> weight;  // (G, taps, W): lanes run along the columns

  // The inputs before the first token of document n, (taps - 1, W).
  KOKKOS_FUNCTION void load_tail(const RowTeam& team, int n, int g, Storage* tail) const {
    const int W = layout.convolved(), row = documents.initial_row(n);
    const bool given = initial.extent(0) != 0 && row >= 0;
    for (int i = 0; i < Taps - 1; ++i) {
      for_each_in(team, W, [&](const int c) {
        tail[i * W + c] = given ? initial(row, i, layout.channel(g, c)) : Storage(0);
      });
    }
    team.team_barrier();
  }

  // The inputs of token t, oldest first.
  struct Window {
    const Storage* input[Taps];
  };
  KOKKOS_FUNCTION Window window(int t, int begin, int g, const Storage* tail) const {
    Window window;
    for (int j = 0; j < Taps; ++j) {
      const int s = t - Taps + 1 + j;
      window.input[j] = s >= begin ? &qkvz(s, g * layout.block())
                                   : tail + (s - begin + Taps - 1) * layout.convolved();
    }
    return window;
  }

  KOKKOS_FORCEINLINE_FUNCTION static Real convolve(const Window& window, const Real* weights, int W,
                                                   int c) {
    Real p = 0;
    for (int j = 0; j < Taps; ++j) {
      p += weights[j * W + c] * static_cast<Real>(window.input[j][c]);
    }
    return p;
  }
};

// A team takes a block of tokens of one key head and walks along it, lanes along the columns.
template <class Storage, int Taps>
struct ConvForward {
  using Real = Accum<Storage>;

  Columns<Storage, Taps> in;
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
          in.load_tail(team, n, g, tail.data());
        }
      }
      const auto window = in.window(t, in.documents.begin(n), g, tail.data());
      for_each_in(team, W, [&](const int c) {
        y[c] = silu(Columns<Storage, Taps>::convolve(window, weights, W, c));
      });
      team.team_barrier();
      store_columns<Storage>(team, in.layout, t, g, y, out);
      team.team_barrier();
    }
  }
};

// The gradient of p, token by token, in a ring of `taps` rows; the gradient of an input is complete
// taps - 1 tokens later, so a team walks that far beyond its block. What belongs to inputs before
// the document goes to the gradient of its tail. Each team owns its row of partial sums of dw.
template <class Storage, int Taps>
struct ConvBackward {
  using Real = Accum<Storage>;

  Columns<Storage, Taps> in;
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
    in.load_tail(team, n, g, rows.tail);
    for_each_in(team, Taps * W, [&](const int i) { rows.ring[i] = 0; });
    team.team_barrier();
    const int complete_from = first == begin ? begin - Taps + 1 : first;
    for (int t = first; t < last + Taps - 1; ++t) {
      Real* const dp = rows.ring + (t - first) % Taps * W;
      if (t < end) {
        const auto window = in.window(t, begin, g, rows.tail);
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
  KOKKOS_FORCEINLINE_FUNCTION void preactivation_gradient(
      const RowTeam& team, int t, int g, const typename Columns<Storage, Taps>::Window& window,
      const Rows& rows, Real* dp) const {
    const int W = in.layout.convolved(), K = in.layout.K, R = in.layout.R;
    Real* const y = rows.y;
    Real* const slope = rows.slope;
    for_each_in(team, W, [&](const int c) {
      const Real p = Columns<Storage, Taps>::convolve(window, rows.weights, W, c);
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

// The last taps - 1 inputs of a document. An element takes one channel of one document and reads
// what was before first, so that `tails` may be `initial`.
template <class Storage>
struct Tails {
  static constexpr int most_rows = most_taps - 1;

  Documents documents;
  GroupedProjection layout;
  Tensor<const Storage, 2> qkvz;
  Tensor<const Storage, 3> initial;
  Tensor<Storage, 3> tails;

  void launch(const Exec& exec) const {
    Kokkos::parallel_for(
        "causal_conv::tails",
        Kokkos::RangePolicy<Exec>(exec, 0, std::int64_t{1} * documents.count * layout.channels()),
        *this);
  }

  KOKKOS_FUNCTION void operator()(const std::int64_t i) const {
    const int n = static_cast<int>(i / layout.channels());
    const int channel = static_cast<int>(i % layout.channels());
    const int to = documents.final_row(n), from = documents.initial_row(n);
    if (to < 0) {
      return;
    }
    const int begin = documents.begin(n), end = documents.begin(n + 1);
    const int column = layout.block_of(channel) * layout.block() + layout.column_of(channel);
    const int rows = tails.extent_int(1);
    Storage before[most_rows];
    for (int row = 0; row < rows; ++row) {
      before[row] =
          initial.extent(0) != 0 && from >= 0 ? initial(from, row, channel) : Storage(0.0f);
    }
    for (int row = 0; row < rows; ++row) {
      const int t = end - rows + row;
      tails(to, row, channel) = t >= begin ? qkvz(t, column) : before[t - begin + rows];
    }
  }
};

// What comes back for the last inputs of a document joins their gradient. An element takes one
// channel of one document.
template <class Storage>
struct AddTailGradient {
  using Real = Accum<Storage>;

  Documents documents;
  GroupedProjection layout;
  Tensor<const Storage, 3> dtails;
  Tensor<Storage, 2> dqkvz;

  KOKKOS_FUNCTION void operator()(const std::int64_t i) const {
    const int n = static_cast<int>(i / layout.channels());
    const int channel = static_cast<int>(i % layout.channels());
    const int from = documents.final_row(n);
    if (from < 0) {
      return;
    }
    const int column = layout.block_of(channel) * layout.block() + layout.column_of(channel);
    const int begin = documents.begin(n), end = documents.begin(n + 1);
    const int rows = dtails.extent_int(1);
    for (int row = end - begin < rows ? rows - end + begin : 0; row < rows; ++row) {
      Storage& du = dqkvz(end - rows + row, column);
      du = Storage(static_cast<Real>(du) + static_cast<Real>(dtails(from, row, channel)));
    }
  }
};

// Weights with the columns of a key head beside each other.
template <class Storage, class Real = Accum<Storage>>
void weight_rows(const Exec& exec, const GroupedProjection& layout,
                 const Tensor<const Storage, 3>& weight, const Tensor<Real, 3>& rows) {
  const int taps = weight.extent_int(2);
  Kokkos::parallel_for(
      "causal_conv::weight_rows", Kokkos::RangePolicy<Exec>(exec, 0, layout.channels()),
      KOKKOS_LAMBDA(const int channel) {
        const int g = layout.block_of(channel), c = layout.column_of(channel);
        for (int j = 0; j < taps; ++j) {
          rows(g, j, c) = static_cast<Real>(weight(channel, 0, j));
        }
      });
}

template <class Real>
void add_weight_gradient(const Exec& exec, const GroupedProjection& layout, int blocks,
                         const Tensor<const Real, 4>& partial, const Tensor<Real, 3>& grad) {
  const int taps = grad.extent_int(2);
  Kokkos::parallel_for(
      "causal_conv::weight_gradient", Kokkos::RangePolicy<Exec>(exec, 0, layout.channels()),
      KOKKOS_LAMBDA(const int channel) {
        const int g = layout.block_of(channel), c = layout.column_of(channel);
        for (int j = 0; j < taps; ++j) {
          Real total = 0;
          for (int block = 0; block < blocks; ++block) {
            total += partial(block, g, j, c);
          }
          grad(channel, 0, j) += total;
        }
      });
}

// Calls f with the number of taps as a constant.
template <class F>
void with_taps(int taps, const F& f) {
  switch (taps) {
    case 2:
      return f(std::integral_constant<int, 2>());
    case 3:
      return f(std::integral_constant<int, 3>());
    case 4:
      return f(std::integral_constant<int, 4>());
    case 5:
      return f(std::integral_constant<int, 5>());
    case most_taps:
      return f(std::integral_constant<int, most_taps>());
    default:
      require(false, "causal convolution: taps = " + std::to_string(taps) + ", wanted 2 to 6");
  }
}

// The channels of q, k and v that belong to the heads of this rank.
Shard channels_of(const GroupedProjection& layout, int taps, const ProcessGrid& grid) {
  const std::int64_t ranks = grid.degrees.tensor;
  const std::int64_t keys = ranks * layout.G * layout.K, values = ranks * layout.heads() * layout.V;
  return grid.tensor_parts({keys, keys, values}, {1, taps});
}

}  // namespace

template <class Storage>
CausalConv<Storage>::CausalConv(ParameterTable& table, const std::string& name,
                                const GroupedProjection& layout, int taps, const ProcessGrid& grid)
    : layout_(layout), taps_(taps) {
  with_taps(taps, [](auto) {});
  table.add({.name = name,
             .shard = channels_of(layout, taps, grid),
             .init = Init::uniform(1.0 / std::sqrt(taps))},
            weight_);
}

template <class Storage>
typename CausalConv<Storage>::Work CausalConv<Storage>::reserve_work(Arena& arena, int T) const {
  return {arena.reserve<Real, 3>("conv_weight", layout_.G, taps_, layout_.convolved()),
          arena.reserve<Real, 4>("conv_partial", blocks(T, backward_block), layout_.G, taps_,
                                 layout_.convolved())};
}

template <class Storage>
void CausalConv<Storage>::forward(const Exec& exec, const Documents& documents,
                                  const Tensor<const Storage, 2>& qkvz,
                                  const Tensor<const Storage, 3>& initial,
                                  const QueryKeyValue<Storage>& out,
                                  const Tensor<Storage, 3>& final, const Work& work) const {
  weight_rows<Storage>(exec, layout_, weight_.value, work.weight);
  with_taps(taps_, [&](auto taps) {
    ConvForward<Storage, taps>{{documents, layout_, qkvz, initial, work.weight}, out}.launch(exec);
  });
  if (final.extent(0) != 0) {
    Tails<Storage>{documents, layout_, qkvz, initial, final}.launch(exec);
  }
}

template <class Storage>
void CausalConv<Storage>::tails(const Exec& exec, const Documents& documents,
                                const Tensor<const Storage, 2>& qkvz,
                                const Tensor<Storage, 3>& tails) const {
  Tails<Storage>{documents, layout_, qkvz, {}, tails}.launch(exec);
}

template <class Storage>
void CausalConv<Storage>::add_tail_gradient(const Exec& exec, const Documents& documents,
                                            const Tensor<const Storage, 3>& dtails,
                                            const Tensor<Storage, 2>& dqkvz) const {
  const std::int64_t channels = std::int64_t{1} * documents.count * layout_.channels();
  Kokkos::parallel_for("causal_conv::add_tail_gradient",
                       Kokkos::RangePolicy<Exec>(exec, 0, channels),
                       AddTailGradient<Storage>{documents, layout_, dtails, dqkvz});
}

template <class Storage>
void CausalConv<Storage>::step(const Exec& exec, const Documents& documents,
                               const Tensor<const Storage, 2>& qkvz,
                               const Tensor<Storage, 3>& tails, const QueryKeyValue<Storage>& out,
                               Keep keep) const {
  CausalConvStep<Storage>{documents, layout_, weight_.value, qkvz, tails, out, keep}.launch(exec);
}

template <class Storage>
void CausalConv<Storage>::backward(const Exec& exec, const Documents& documents,
                                   const Tensor<const Storage, 2>& qkvz,
                                   const Tensor<const Storage, 3>& initial,
                                   const QueryKeyValue<Storage>& dout,
                                   const Tensor<const Storage, 3>& dfinal,
                                   const Tensor<Storage, 2>& dqkvz,
                                   const Tensor<Storage, 3>& dinitial, const Work& work) const {
  weight_rows<Storage>(exec, layout_, weight_.value, work.weight);
  with_taps(taps_, [&](auto taps) {
    ConvBackward<Storage, taps>{{documents, layout_, qkvz, initial, work.weight},
                                dout,
                                dfinal,
                                dqkvz,
                                dinitial,
                                work.partial}
        .launch(exec);
  });
  if (weight_.trained()) {
    add_weight_gradient<Real>(exec, layout_, blocks(qkvz.extent_int(0), backward_block),
                              work.partial, weight_.grad);
  }
}

template class CausalConv<bf16>;
template class CausalConv<float>;
template class CausalConv<double>;

}  // namespace qnext
