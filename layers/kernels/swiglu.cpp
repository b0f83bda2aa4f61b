// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/swiglu.hpp"

#include "core/math.hpp"
#include "core/team.hpp"

namespace qnext {
namespace {

template <class Real>
KOKKOS_INLINE_FUNCTION int row_of(const SwigluRows<Real>& rows, int a) {
  return rows.row.extent(0) == 0 ? a : rows.row(a);
}
template <class Real>
KOKKOS_INLINE_FUNCTION Real factor_of(const SwigluRows<Real>& rows, int a) {
  return rows.factor.extent(0) == 0 ? Real(1) : rows.factor(a);
}

// A team takes a row.
template <class Storage>
struct SwigluForward {
  using Real = Accum<Storage>;

  SwigluRows<Real> rows;
  GateUp<const Storage> in;
  Tensor<Storage, 2> hidden;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int r = row_of(rows, team.league_rank());
    if (r < 0) {
      return;
    }
    const Real factor = factor_of(rows, team.league_rank());
    const Storage* const gate = in.gate + std::int64_t{r} * in.stride;
    const Storage* const up = in.up + std::int64_t{r} * in.stride;
    Storage* const out = &hidden(r, 0);
    for_each_in(team, hidden.extent_int(1), [&](const int f) {
      out[f] = Storage(factor * silu(static_cast<Real>(gate[f])) * static_cast<Real>(up[f]));
    });
  }
};

// The sum of f(i) over all i < n, in every lane, for an f that also stores results. On a CPU a
// block of values waits in the first cache until all of them are computed, so that both loops are
// vector instructions.
template <class Real, class F>
KOKKOS_FORCEINLINE_FUNCTION Real sum_while(const RowTeam& team, int n, const F& f) {
  if constexpr (device_backend) {
    return sum_over<Real>(team, n, f);
  } else {
    constexpr int block = 64;
    Real sum[block] = {};
    for (int first = 0; first < n; first += block) {
      const int width = n - first < block ? n - first : block;
      Real value[block];
      for_each_in(team, width, [&](const int i) { value[i] = f(first + i); });
      for (int i = 0; i < width; ++i) {
        sum[i] += value[i];
      }
    }
    return sum_over<Real>(team, block, [&](const int i) { return sum[i]; });
  }
}

// A team takes a row, in place and in one pass.
template <class Storage>
struct SwigluBackward {
  using Real = Accum<Storage>;

  SwigluRows<Real> rows;
  GateUp<const Storage> in;
  Tensor<Storage, 2> hidden;
  GateUp<Storage> gradient;
  Tensor<Real, 1> dfactor;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int a = team.league_rank();
    const int r = row_of(rows, a);
    const Real sum = r < 0 ? Real(0) : row_backward(team, r, factor_of(rows, a));
    if (dfactor.extent(0) != 0) {
      Kokkos::single(Kokkos::PerTeam(team), [&] { dfactor(a) = sum; });
    }
  }

  KOKKOS_FORCEINLINE_FUNCTION Real row_backward(const RowTeam& team, int r, Real factor) const {
    const Storage* const gate = in.gate + std::int64_t{r} * in.stride;
    const Storage* const up = in.up + std::int64_t{r} * in.stride;
    Storage* const dgate = gradient.gate + std::int64_t{r} * gradient.stride;
    Storage* const dup = gradient.up + std::int64_t{r} * gradient.stride;
    Storage* const inout = &hidden(r, 0);
    return sum_while<Real>(team, hidden.extent_int(1), [=](const int f) {
      const Real g = static_cast<Real>(gate[f]);
      const Real u = static_cast<Real>(up[f]);
      const Real dhidden = static_cast<Real>(inout[f]);
      const Real s = sigmoid(g);
      const Real h = (g * s) * u;
      const Real dh = factor * dhidden;
      dgate[f] = Storage(dh * u * s * (Real(1) + g * (Real(1) - s)));
      dup[f] = Storage(dh * g * s);
      inout[f] = Storage(factor * h);
      return dhidden * h;
    });
  }
};

}  // namespace

template <class Storage>
void swiglu_forward(const Exec& exec, const SwigluRows<Accum<Storage>>& rows,
                    const GateUp<const Storage>& in, const Tensor<Storage, 2>& hidden) {
  Kokkos::parallel_for("swiglu::forward", row_policy(exec, rows.count),
                       SwigluForward<Storage>{rows, in, hidden});
}

template <class Storage>
void swiglu_backward(const Exec& exec, const SwigluRows<Accum<Storage>>& rows,
                     const GateUp<const Storage>& in, const Tensor<Storage, 2>& hidden,
                     const GateUp<Storage>& gradient, const Tensor<Accum<Storage>, 1>& dfactor) {
  Kokkos::parallel_for("swiglu::backward", row_policy(exec, rows.count),
                       SwigluBackward<Storage>{rows, in, hidden, gradient, dfactor});
}

#define QNEXT_INSTANTIATE(Storage)                                                                \
  template void swiglu_forward<Storage>(const Exec&, const SwigluRows<Accum<Storage>>&,           \
                                        const GateUp<const Storage>&, const Tensor<Storage, 2>&); \
  template void swiglu_backward<Storage>(                                                         \
      const Exec&, const SwigluRows<Accum<Storage>>&, const GateUp<const Storage>&,               \
      const Tensor<Storage, 2>&, const GateUp<Storage>&, const Tensor<Accum<Storage>, 1>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
