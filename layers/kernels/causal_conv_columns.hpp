// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/require.hpp"
#include "core/team.hpp"
#include "layers/kernels/causal_conv.hpp"

#include <string>
#include <type_traits>

namespace qnext::causal_conv {

/// What the forward and the backward kernel share: a team sees the convolved columns of one key
/// head, W of them, for a block of tokens. The blocks of all key heads for the same tokens follow
/// each other: few enough tokens, and the caches see a handful of rows that are read from end to
/// end.
inline constexpr int most_taps = 6;

inline int blocks(int T, int tokens) {
  return (T + tokens - 1) / tokens;
}

/// The inputs before the first token of document n, (taps - 1, W).
template <int Taps, class Storage>
KOKKOS_INLINE_FUNCTION void load_tail(const RowTeam& team, const CausalConvInput<Storage>& in,
                                      int n, int g, Storage* tail) {
  const int W = in.layout.convolved(), row = in.documents.initial_row(n);
  const bool given = in.initial.extent(0) != 0 && row >= 0;
  for (int i = 0; i < Taps - 1; ++i) {
    for_each_in(team, W, [&](const int c) {
      tail[i * W + c] = given ? in.initial(row, i, in.layout.channel(g, c)) : Storage(0);
    });
  }
  team.team_barrier();
}

/// The inputs of a token, oldest first.
template <int Taps, class Storage>
struct Window {
  const Storage* input[Taps];
};

/// Of token t in a document that begins at `begin`.
template <int Taps, class Storage>
KOKKOS_INLINE_FUNCTION Window<Taps, Storage> window_of(const CausalConvInput<Storage>& in, int t,
                                                       int begin, int g, const Storage* tail) {
  Window<Taps, Storage> window;
  for (int j = 0; j < Taps; ++j) {
    const int s = t - Taps + 1 + j;
    window.input[j] = s >= begin ? &in.qkvz(s, g * in.layout.block())
                                 : tail + (s - begin + Taps - 1) * in.layout.convolved();
  }
  return window;
}

/// The preactivation of column c of W.
template <int Taps, class Storage>
KOKKOS_FORCEINLINE_FUNCTION Accum<Storage> convolve(const Window<Taps, Storage>& window,
                                                    const Accum<Storage>* weights, int W, int c) {
  Accum<Storage> p = 0;
  for (int j = 0; j < Taps; ++j) {
    p += weights[j * W + c] * static_cast<Accum<Storage>>(window.input[j][c]);
  }
  return p;
}

/// Calls f with the number of taps as a constant.
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

}  // namespace qnext::causal_conv
