// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/delta_gates.hpp"

#include "core/math.hpp"

#include <cmath>

namespace qnext {
namespace {

constexpr int tokens_per_block = 64;

int blocks(int T) {
  return (T + tokens_per_block - 1) / tokens_per_block;
}

// The columns of b and a of value head h.
struct Columns {
  int b;
  int a;
};
KOKKOS_INLINE_FUNCTION Columns columns_of(int h, int H, int G) {
  const int R = H / G;
  const int b = h / R * 2 * R + h % R;
  return {b, b + R};
}

// An element takes one value head for a block of tokens and owns two partial sums.
template <class Storage>
struct GatesBackward {
  using Real = Accum<Storage>;

  int G;
  Tensor<const Real, 2> dlog_decay, dbeta, log_decay, beta;
  Tensor<const Real, 1> a_log;
  Tensor<Storage, 2> dba;
  Tensor<Real, 2> partial;

  KOKKOS_FUNCTION void operator()(const int i) const {
    const int T = beta.extent_int(0), H = beta.extent_int(1);
    const int h = i % H;
    const int first = i / H * tokens_per_block;
    const int last = first + tokens_per_block < T ? first + tokens_per_block : T;
    const Columns column = columns_of(h, H, G);
    const Real rate = exp(a_log(h));
    Real da_log = 0, ddt_bias = 0;
    for (int t = first; t < last; ++t) {
      const Real opened = beta(t, h);
      const Real softplus_slope = -std::expm1(log_decay(t, h) / rate);
      const Real da = -rate * softplus_slope * dlog_decay(t, h);
      da_log += dlog_decay(t, h) * log_decay(t, h);
      ddt_bias += da;
      dba(t, column.a) = Storage(da);
      dba(t, column.b) = Storage(dbeta(t, h) * opened * (Real(1) - opened));
    }
    partial(i / H, h) = da_log;
    partial(i / H, H + h) = ddt_bias;
  }
};

}  // namespace

template <class Real>
void delta_gates(const Exec& exec, int G, const Tensor<const Real, 2>& ba,
                 const Tensor<const Real, 1>& a_log, const Tensor<const Real, 1>& dt_bias,
                 const Tensor<Real, 2>& log_decay, const Tensor<Real, 2>& beta) {
  const int H = beta.extent_int(1);
  const std::int64_t count = static_cast<std::int64_t>(beta.extent(0)) * H;
  Kokkos::parallel_for(
      "delta_gates::forward", Kokkos::RangePolicy<Exec>(exec, 0, count),
      KOKKOS_LAMBDA(const std::int64_t i) {
        const int t = static_cast<int>(i / H), h = static_cast<int>(i % H);
        const Columns column = columns_of(h, H, G);
        beta(t, h) = sigmoid(ba(t, column.b));
        log_decay(t, h) = -exp(a_log(h)) * softplus(ba(t, column.a) + dt_bias(h));
      });
}

template <class Real>
DeltaGatesWork<Real> reserve_delta_gates_work(Arena& arena, int T, int H) {
  return {arena.reserve<Real, 2>("gates_partial", blocks(T), 2 * H)};
}

template <class Storage>
void delta_gates_backward(
    const Exec& exec, int G, const Tensor<const Accum<Storage>, 2>& dlog_decay,
    const Tensor<const Accum<Storage>, 2>& dbeta, const Tensor<const Accum<Storage>, 2>& log_decay,
    const Tensor<const Accum<Storage>, 2>& beta, const Tensor<const Accum<Storage>, 1>& a_log,
    const Tensor<Storage, 2>& dba, const Tensor<Accum<Storage>, 1>& da_log,
    const Tensor<Accum<Storage>, 1>& ddt_bias, const DeltaGatesWork<Accum<Storage>>& work) {
  using Real = Accum<Storage>;
  const int H = beta.extent_int(1), count = blocks(beta.extent_int(0));
  const GatesBackward<Storage> kernel{G,    dlog_decay, dbeta, log_decay,
                                      beta, a_log,      dba,   work.partial};
  Kokkos::parallel_for("delta_gates::backward", Kokkos::RangePolicy<Exec>(exec, 0, count * H),
                       kernel);
  if (da_log.data() == nullptr) {
    return;
  }
  const Tensor<const Real, 2> partial = work.partial;
  Kokkos::parallel_for(
      "delta_gates::weight_gradients", Kokkos::RangePolicy<Exec>(exec, 0, H),
      KOKKOS_LAMBDA(const int h) {
        Real of_a_log = 0, of_dt_bias = 0;
        for (int block = 0; block < count; ++block) {
          of_a_log += partial(block, h);
          of_dt_bias += partial(block, H + h);
        }
        da_log(h) += of_a_log;
        ddt_bias(h) += of_dt_bias;
      });
}

#define QNEXT_INSTANTIATE(Real)                                                               \
  template void delta_gates<Real>(const Exec&, int, const Tensor<const Real, 2>&,             \
                                  const Tensor<const Real, 1>&, const Tensor<const Real, 1>&, \
                                  const Tensor<Real, 2>&, const Tensor<Real, 2>&);            \
  template DeltaGatesWork<Real> reserve_delta_gates_work(Arena&, int, int);
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

#define QNEXT_INSTANTIATE(Storage)                                                    \
  template void delta_gates_backward<Storage>(                                        \
      const Exec&, int, const Tensor<const Accum<Storage>, 2>&,                       \
      const Tensor<const Accum<Storage>, 2>&, const Tensor<const Accum<Storage>, 2>&, \
      const Tensor<const Accum<Storage>, 2>&, const Tensor<const Accum<Storage>, 1>&, \
      const Tensor<Storage, 2>&, const Tensor<Accum<Storage>, 1>&,                    \
      const Tensor<Accum<Storage>, 1>&, const DeltaGatesWork<Accum<Storage>>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
