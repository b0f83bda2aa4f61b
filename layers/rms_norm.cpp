// SPDX-License-Identifier: Apache-2.0
#include "layers/rms_norm.hpp"

#include "core/math.hpp"
#include "core/team.hpp"
#include "layers/kernels/column_sum.hpp"

namespace qnext {
namespace {

constexpr int rows_per_block = 64;

int row_blocks(int T) {
  return (T + rows_per_block - 1) / rows_per_block;
}

// A team takes a row.
template <class In, class Storage>
struct NormForward {
  using Real = Accum<Storage>;

  Tensor<const In, 2> x;         // (T, D)
  Tensor<const Real, 1> weight;  // (D)
  Tensor<Storage, 2> y;          // (T, D)
  Tensor<Real, 1> scale;         // (T) or empty
  Real epsilon;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const int D = x.extent_int(1);
    const In* const row = &x(t, 0);
    const Real* const w = weight.data();
    Storage* const out = &y(t, 0);
    const Real squares = sum_over<Real>(team, D, [&](const int d) {
      const Real value = static_cast<Real>(row[d]);
      return value * value;
    });
    const Real r = Real(1) / sqrt(squares / Real(D) + epsilon);
    for_each_in(team, D, [&](const int d) {
      out[d] = Storage(static_cast<Real>(row[d]) * r * (Real(1) + w[d]));
    });
    if (scale.extent(0) != 0) {
      Kokkos::single(Kokkos::PerTeam(team), [&] { scale(t) = r; });
    }
  }
};

// A team takes a block of rows, one after the other, and owns one row of the partial sums of dw: no
// two teams meet, and the order of the sum does not depend on their number.
template <class In, class Storage>
struct NormBackward {
  using Real = Accum<Storage>;

  Tensor<const Storage, 2> dy;   // (T, D)
  Tensor<const In, 2> x;         // (T, D)
  Tensor<const Real, 1> scale;   // (T)
  Tensor<const Real, 1> weight;  // (D)
  Tensor<In, 2> dx;              // (T, D)
  Tensor<Real, 2> partial;       // (row blocks, D)
  bool add;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int T = x.extent_int(0);
    const int D = x.extent_int(1);
    const int first = team.league_rank() * rows_per_block;
    const int last = first + rows_per_block < T ? first + rows_per_block : T;
    Real* const sum = &partial(team.league_rank(), 0);
    const Real* const w = weight.data();
    for_each_in(team, D, [&](const int d) { sum[d] = 0; });
    for (int t = first; t < last; ++t) {
      const Storage* const dy_row = &dy(t, 0);
      const In* const x_row = &x(t, 0);
      In* const dx_row = &dx(t, 0);
      const Real r = scale(t);
      const Real mean = sum_over<Real>(team, D,
                                       [&](const int d) {
                                         return static_cast<Real>(dy_row[d]) * (Real(1) + w[d]) *
                                                static_cast<Real>(x_row[d]) * r;
                                       }) /
                        Real(D);
      for_each_in(team, D, [&](const int d) {
        const Real normed = static_cast<Real>(x_row[d]) * r;
        const Real gradient = static_cast<Real>(dy_row[d]);
        const Real value = r * (gradient * (Real(1) + w[d]) - normed * mean);
        sum[d] += gradient * normed;
        dx_row[d] = In(add ? static_cast<Real>(dx_row[d]) + value : value);
      });
      team.team_barrier();
    }
  }
};

}  // namespace

template <class Storage>
RmsNorm<Storage>::RmsNorm(ParameterTable& table, const std::string& name, int width, double epsilon,
                          const ProcessGrid& grid)
    : width_(width), epsilon_(epsilon) {
  table.add(grid.replicated({.name = name,
                             .shard = Shard::whole({width}),
                             .init = Init::zeros(),
                             .decay = Decay::no,
                             .zero_centred_norm = true}),
            weight_);
}

template <class Storage>
typename RmsNorm<Storage>::Work RmsNorm<Storage>::reserve_work(Arena& arena, int T) const {
  return {arena.reserve<Real, 2>("norm_partial", row_blocks(T), width_)};
}

template <class Storage>
template <class In>
void RmsNorm<Storage>::forward(const Exec& exec, const Tensor<const In, 2>& x,
                               const Tensor<Storage, 2>& y, const Tensor<Real, 1>& scale) const {
  const NormForward<In, Storage> kernel{x, weight_.value, y, scale, static_cast<Real>(epsilon_)};
  Kokkos::parallel_for("rms_norm::forward", row_policy(exec, x.extent_int(0)), kernel);
}

template <class Storage>
template <class In>
void RmsNorm<Storage>::backward(const Exec& exec, const Tensor<const Storage, 2>& dy,
                                const Tensor<const In, 2>& x, const Tensor<const Real, 1>& scale,
                                const Tensor<In, 2>& dx, Write write, const Work& work) const {
  const int blocks = row_blocks(x.extent_int(0));
  const NormBackward<In, Storage> kernel{
      dy, x, scale, weight_.value, dx, work.partial, write == Write::add};
  Kokkos::parallel_for("rms_norm::backward", row_policy(exec, blocks), kernel);
  add_column_sums<Real>(exec, work.partial, blocks, weight_.grad);
}

template class RmsNorm<bf16>;
template class RmsNorm<float>;
template class RmsNorm<double>;

#define QNEXT_INSTANTIATE(Storage, In)                                                 \
  template void RmsNorm<Storage>::forward<In>(const Exec&, const Tensor<const In, 2>&, \
                                              const Tensor<Storage, 2>&,               \
                                              const Tensor<Accum<Storage>, 1>&) const; \
  template void RmsNorm<Storage>::backward<In>(                                        \
      const Exec&, const Tensor<const Storage, 2>&, const Tensor<const In, 2>&,        \
      const Tensor<const Accum<Storage>, 1>&, const Tensor<In, 2>&, Write, const Work&) const;
QNEXT_INSTANTIATE(bf16, bf16)
QNEXT_INSTANTIATE(bf16, float)
QNEXT_INSTANTIATE(float, float)
QNEXT_INSTANTIATE(double, double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
