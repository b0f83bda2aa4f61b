// SPDX-License-Identifier: Apache-2.0
#include "layers/gated_rms_norm.hpp"

#include "core/math.hpp"
#include "core/team.hpp"
#include "layers/kernels/column_sum.hpp"

namespace qnext {
namespace {

constexpr int tokens_per_block = 32;

int blocks(int T) {
  return (T + tokens_per_block - 1) / tokens_per_block;
}

template <class Storage, class Real = Accum<Storage>>
KOKKOS_FORCEINLINE_FUNCTION Real inverse_root_mean(const RowTeam& team, const Storage* x, int V,
                                                   Real epsilon) {
  const Real squares = sum_over<Real>(team, V, [&](const int c) {
    const Real value = static_cast<Real>(x[c]);
    return value * value;
  });
  return Real(1) / sqrt(squares / static_cast<Real>(V) + epsilon);
}

// A team takes the heads of a token, one after the other.
template <class Storage>
struct GatedNormForward {
  using Real = Accum<Storage>;

  GroupedProjection layout;
  Tensor<const Storage, 3> x;     // (T, H, V)
  Tensor<const Storage, 2> qkvz;  // (T, G(2K+2RV))
  Tensor<const Real, 1> weight;   // (V)
  Tensor<Storage, 2> y;           // (T, HV)
  Real epsilon;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank(), V = layout.V;
    const Real* const w = weight.data();
    for (int h = 0; h < layout.heads(); ++h) {
      const Storage* const row = &x(t, h, 0);
      const Storage* const gate = &qkvz(t, layout.gate(h));
      Storage* const out = &y(t, h * V);
      const Real r = inverse_root_mean<Storage>(team, row, V, epsilon);
      for_each_in(team, V, [&](const int c) {
        out[c] = Storage(w[c] * (static_cast<Real>(row[c]) * r) * silu(static_cast<Real>(gate[c])));
      });
    }
  }
};

// A team takes a block of tokens and owns one row of the partial sums of dw.
template <class Storage>
struct GatedNormBackward {
  using Real = Accum<Storage>;

  GroupedProjection layout;
  Tensor<const Storage, 2> dy;    // (T, HV)
  Tensor<const Storage, 3> x;     // (T, H, V)
  Tensor<const Storage, 2> qkvz;  // (T, G(2K+2RV))
  Tensor<const Real, 1> weight;   // (V)
  Tensor<Storage, 3> dx;          // (T, H, V)
  Tensor<Storage, 2> dqkvz;       // (T, G(2K+2RV))
  Tensor<Storage, 2> y;           // (T, HV)
  Tensor<Real, 2> partial;        // (token blocks, V)
  Real epsilon;

  void launch(const Exec& exec) const {
    const int bytes = static_cast<int>(Scratch<Real, 1>::shmem_size(layout.V));
    Kokkos::parallel_for(
        "gated_rms_norm::backward",
        row_policy(exec, blocks(x.extent_int(0))).set_scratch_size(0, Kokkos::PerTeam(bytes)),
        *this);
  }

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int T = x.extent_int(0), V = layout.V;
    const int first = team.league_rank() * tokens_per_block;
    const int last = first + tokens_per_block < T ? first + tokens_per_block : T;
    const Scratch<Real, 1> opened(team.team_scratch(0), V);
    Real* const sum = &partial(team.league_rank(), 0);
    for_each_in(team, V, [&](const int c) { sum[c] = 0; });
    for (int t = first; t < last; ++t) {
      for (int h = 0; h < layout.heads(); ++h) {
        head(team, t, h, opened.data(), sum);
      }
    }
  }

  KOKKOS_FORCEINLINE_FUNCTION void head(const RowTeam& team, int t, int h, Real* opened,
                                        Real* sum) const {
    const int V = layout.V, z = layout.gate(h);
    const Real* const w = weight.data();
    const Storage* const row = &x(t, h, 0);
    const Storage* const gate = &qkvz(t, z);
    const Storage* const gradient = &dy(t, h * V);
    Storage* const dgate = &dqkvz(t, z);
    Storage* const out = &y(t, h * V);
    Storage* const dinput = &dx(t, h, 0);
    const Real r = inverse_root_mean<Storage>(team, row, V, epsilon);
    for_each_in(team, V, [&](const int c) {
      const Real gate_c = static_cast<Real>(gate[c]), normed = static_cast<Real>(row[c]) * r;
      const Real d = static_cast<Real>(gradient[c]);
      const Real s = sigmoid(gate_c);
      const Real open = gate_c * s;
      dgate[c] = Storage(d * w[c] * normed * (s * (Real(1) + gate_c * (Real(1) - s))));
      out[c] = Storage(w[c] * normed * open);
      sum[c] += d * open * normed;
      opened[c] = d * w[c] * open;
    });
    team.team_barrier();
    const Real mean =
        sum_over<Real>(team, V,
                       [&](const int c) { return opened[c] * (static_cast<Real>(row[c]) * r); }) /
        static_cast<Real>(V);
    for_each_in(team, V, [&](const int c) {
      dinput[c] = Storage(r * (opened[c] - static_cast<Real>(row[c]) * r * mean));
    });
    team.team_barrier();
  }
};

}  // namespace

template <class Storage>
GatedRmsNorm<Storage>::GatedRmsNorm(ParameterTable& table, const std::string& name,
                                    const GroupedProjection& layout, double epsilon,
                                    const ProcessGrid& grid)
    : layout_(layout), epsilon_(epsilon) {
  table.add(grid.replicated({.name = name,
                             .shard = Shard::whole({layout.V}),
                             .init = Init::ones(),
                             .decay = Decay::no}),
            weight_);
}

template <class Storage>
typename GatedRmsNorm<Storage>::Work GatedRmsNorm<Storage>::reserve_work(Arena& arena,
                                                                         int T) const {
  return {arena.reserve<Real, 2>("gated_norm_partial", blocks(T), layout_.V)};
}

template <class Storage>
void GatedRmsNorm<Storage>::forward(const Exec& exec, const Tensor<const Storage, 3>& x,
                                    const Tensor<const Storage, 2>& qkvz,
                                    const Tensor<Storage, 2>& y) const {
  const GatedNormForward<Storage> kernel{layout_,       x, qkvz,
                                         weight_.value, y, static_cast<Real>(epsilon_)};
  Kokkos::parallel_for("gated_rms_norm::forward", row_policy(exec, x.extent_int(0)), kernel);
}

template <class Storage>
void GatedRmsNorm<Storage>::backward(const Exec& exec, const Tensor<const Storage, 2>& dy,
                                     const Tensor<const Storage, 3>& x,
                                     const Tensor<const Storage, 2>& qkvz,
                                     const Tensor<Storage, 3>& dx, const Tensor<Storage, 2>& dqkvz,
                                     const Tensor<Storage, 2>& y, const Work& work) const {
  GatedNormBackward<Storage>{layout_, dy,    x, qkvz,         weight_.value,
                             dx,      dqkvz, y, work.partial, static_cast<Real>(epsilon_)}
      .launch(exec);
  add_column_sums<Real>(exec, work.partial, blocks(x.extent_int(0)), weight_.grad);
}

template class GatedRmsNorm<bf16>;
template class GatedRmsNorm<float>;
template class GatedRmsNorm<double>;

}  // namespace qnext
