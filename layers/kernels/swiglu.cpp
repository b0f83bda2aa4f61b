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

// A team takes a row: first the sum for dfactor, then the elements in place.
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
    const int F = hidden.extent_int(1);
    const int r = row_of(rows, a);
    const bool wanted = dfactor.extent(0) != 0;
    if (r < 0) {
      if (wanted) {
        Kokkos::single(Kokkos::PerTeam(team), [&] { dfactor(a) = 0; });
      }
      return;
    }
    const Real factor = factor_of(rows, a);
    const Storage* const gate = in.gate + std::int64_t{r} * in.stride;
    const Storage* const up = in.up + std::int64_t{r} * in.stride;
    Storage* const dgate = gradient.gate + std::int64_t{r} * gradient.stride;
    Storage* const dup = gradient.up + std::int64_t{r} * gradient.stride;
    Storage* const inout = &hidden(r, 0);
    if (wanted) {
      const Real sum = sum_over<Real>(team, F, [&](const int f) {
        return static_cast<Real>(inout[f]) * silu(static_cast<Real>(gate[f])) *
               static_cast<Real>(up[f]);
      });
      Kokkos::single(Kokkos::PerTeam(team), [&] { dfactor(a) = sum; });
      team.team_barrier();
    }
    for_each_in(team, F, [&](const int f) {
      const Real g = static_cast<Real>(gate[f]);
      const Real u = static_cast<Real>(up[f]);
      const Real s = sigmoid(g);
      const Real dh = factor * static_cast<Real>(inout[f]);
      dgate[f] = Storage(dh * u * s * (Real(1) + g * (Real(1) - s)));
      dup[f] = Storage(dh * g * s);
      inout[f] = Storage(factor * (g * s) * u);
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
