// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/rotary.hpp"

#include "core/math.hpp"
#include "core/team.hpp"
#include "layers/kernels/column_sum.hpp"

#include <cmath>

namespace qnext {
namespace {

constexpr int tokens_per_block = 64;

template <class Real>
struct Angles {
  Tensor<const int, 1> position;
  Tensor<Real, 2> rotation;
  double base;

  KOKKOS_FUNCTION void operator()(const int index) const {
    const int T = rotation.extent_int(0), half = rotation.extent_int(1) / 2;
    const int i = index % half;
    const int first = index / half * tokens_per_block;
    const Real frequency = static_cast<Real>(std::pow(base, -static_cast<double>(i) / half));
    for (int t = first; t < T && t < first + tokens_per_block; ++t) {
      const Real angle = static_cast<Real>(position(t)) * frequency;
      rotation(t, i) = std::cos(angle);
      rotation(t, half + i) = std::sin(angle);
    }
  }
};

template <class Storage>
KOKKOS_INLINE_FUNCTION Accum<Storage> head_scale(const RowTeam& team, const Storage* x, int W,
                                                 Accum<Storage> epsilon) {
  using Real = Accum<Storage>;
  const Real squares = sum_over<Real>(team, W, [&](const int w) {
    const Real value = static_cast<Real>(x[w]);
    return value * value;
  });
  return Real(1) / sqrt(squares / Real(W) + epsilon);
}

// A team takes a token with all its heads, which share the angles.
template <class Storage>
struct NormAndRotate {
  using Real = Accum<Storage>;

  HeadNorm<Storage> in;
  Tensor<Storage, 3> out;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const int H = out.extent_int(1), W = out.extent_int(2);
    const int rotary = in.rotation.extent_int(1), half = rotary / 2;
    const Real* const cosine = in.rotation.data() + static_cast<std::int64_t>(t) * rotary;
    const Real* const sine = cosine + half;
    const Real* const weight = in.weight.data();
    for (int h = 0; h < H; ++h) {
      const Storage* const x = &in.raw(t, h, 0);
      Storage* const y = &out(t, h, 0);
      const Real r = head_scale<Storage>(team, x, W, in.epsilon);
      const auto normed = [&](const int w) {
        return static_cast<Real>(x[w]) * r * (Real(1) + weight[w]);
      };
      for_each_in(team, half, [&](const int i) {
        const Real low = normed(i), high = normed(half + i);
        y[i] = Storage(low * cosine[i] - high * sine[i]);
        y[half + i] = Storage(high * cosine[i] + low * sine[i]);
      });
      for_each_in(team, W - rotary,
                  [&](const int i) { y[rotary + i] = Storage(normed(rotary + i)); });
    }
  }
};

// A team takes a block of tokens and owns one row of the partial sums of the weight gradient: the
// order of the sum over tokens and heads depends on T alone.
template <class Storage>
struct NormAndRotateBackward {
  using Real = Accum<Storage>;

  HeadNorm<Storage> in;
  Tensor<const Storage, 3> dout;
  Tensor<Storage, 3> draw;
  Tensor<Real, 2> partial;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int T = in.raw.extent_int(0), H = in.raw.extent_int(1), W = in.weight.extent_int(0);
    const int first = team.league_rank() * tokens_per_block;
    Real* const sum = &partial(team.league_rank(), 0);
    for_each_in(team, W, [&](const int w) { sum[w] = 0; });
    team.team_barrier();
    for (int t = first; t < T && t < first + tokens_per_block; ++t) {
      for (int h = 0; h < H; ++h) {
        head(team, t, h, sum);
        team.team_barrier();
      }
    }
  }

  // With dn = the rotation of dy by the opposite angle and n = x r:
  // dx = r (dn (1 + w) - n mean(dn (1 + w) n)),  dw += dn n.
  KOKKOS_FUNCTION void head(const RowTeam& team, int t, int h, Real* sum) const {
    const int W = in.weight.extent_int(0);
    const int rotary = in.rotation.extent_int(1), half = rotary / 2;
    const Real* const cosine = in.rotation.data() + static_cast<std::int64_t>(t) * rotary;
    const Real* const sine = cosine + half;
    const Real* const weight = in.weight.data();
    const Storage* const x = &in.raw(t, h, 0);
    const Storage* const dy = &dout(t, h, 0);
    Storage* const dx = &draw(t, h, 0);
    const Real r = head_scale<Storage>(team, x, W, in.epsilon);
    const auto low = [&](const int i) {
      return static_cast<Real>(dy[i]) * cosine[i] + static_cast<Real>(dy[half + i]) * sine[i];
    };
    const auto high = [&](const int i) {
      return static_cast<Real>(dy[half + i]) * cosine[i] - static_cast<Real>(dy[i]) * sine[i];
    };
    const auto share = [&](const int w, const Real dn) {
      return dn * (Real(1) + weight[w]) * static_cast<Real>(x[w]) * r;
    };
    const Real rotated = sum_over<Real>(
        team, half, [&](const int i) { return share(i, low(i)) + share(half + i, high(i)); });
    const Real passed = sum_over<Real>(team, W - rotary, [&](const int i) {
      return share(rotary + i, static_cast<Real>(dy[rotary + i]));
    });
    const Real mean = (rotated + passed) / Real(W);
    const auto leave = [&](const int w, const Real dn) {
      const Real n = static_cast<Real>(x[w]) * r;
      sum[w] += dn * n;
      dx[w] = Storage(r * (dn * (Real(1) + weight[w]) - n * mean));
    };
    team.team_barrier();  // dx may be dy
    for_each_in(team, half, [&](const int i) {
      const Real dlow = low(i), dhigh = high(i);
      leave(i, dlow);
      leave(half + i, dhigh);
    });
    for_each_in(team, W - rotary,
                [&](const int i) { leave(rotary + i, static_cast<Real>(dy[rotary + i])); });
  }
};

}  // namespace

template <class Real>
void rotary_angles(const Exec& exec, const Tensor<const int, 1>& position, double base,
                   const Tensor<Real, 2>& rotation) {
  const int blocks = head_norm_blocks(rotation.extent_int(0));
  const Kokkos::RangePolicy<Exec> range(exec, 0, blocks * (rotation.extent_int(1) / 2));
  Kokkos::parallel_for("rotary::angles", range, Angles<Real>{position, rotation, base});
}

template <class Storage>
void norm_and_rotate(const Exec& exec, const HeadNorm<Storage>& in, const Tensor<Storage, 3>& out) {
  Kokkos::parallel_for("rotary::forward", row_policy(exec, out.extent_int(0)),
                       NormAndRotate<Storage>{in, out});
}

int head_norm_blocks(int T) {
  return (T + tokens_per_block - 1) / tokens_per_block;
}

template <class Storage>
void norm_and_rotate_backward(const Exec& exec, const HeadNorm<Storage>& in,
                              const Tensor<const Storage, 3>& dout, const Tensor<Storage, 3>& draw,
                              const Tensor<Accum<Storage>, 2>& partial,
                              const Tensor<Accum<Storage>, 1>& dweight) {
  const int blocks = head_norm_blocks(in.raw.extent_int(0));
  Kokkos::parallel_for("rotary::backward", row_policy(exec, blocks),
                       NormAndRotateBackward<Storage>{in, dout, draw, partial});
  add_column_sums<Accum<Storage>>(exec, partial, blocks, dweight);
}

template void rotary_angles<float>(const Exec&, const Tensor<const int, 1>&, double,
                                   const Tensor<float, 2>&);
template void rotary_angles<double>(const Exec&, const Tensor<const int, 1>&, double,
                                    const Tensor<double, 2>&);

#define QNEXT_INSTANTIATE(Storage)                                              \
  template void norm_and_rotate<Storage>(const Exec&, const HeadNorm<Storage>&, \
                                         const Tensor<Storage, 3>&);            \
  template void norm_and_rotate_backward<Storage>(                              \
      const Exec&, const HeadNorm<Storage>&, const Tensor<const Storage, 3>&,   \
      const Tensor<Storage, 3>&, const Tensor<Accum<Storage>, 2>&,              \
      const Tensor<Accum<Storage>, 1>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
