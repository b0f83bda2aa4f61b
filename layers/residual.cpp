// SPDX-License-Identifier: Apache-2.0
#include "layers/residual.hpp"

#include "core/random.hpp"
#include "core/team.hpp"

namespace qnext {
namespace {

template <class Real>
KOKKOS_INLINE_FUNCTION Real kept(const Dropout& dropout, std::int64_t i, Real value) {
  const bool keep =
      random_uniform(dropout.key, static_cast<std::uint64_t>(i)) >= dropout.probability;
  return keep ? value / static_cast<Real>(1.0 - dropout.probability) : Real(0);
}

template <class Storage>
struct AddBranch {
  using Real = Accum<Storage>;

  Tensor<const Real, 2> x;          // (T, D)
  Tensor<const Storage, 2> branch;  // (T, D)
  Tensor<Real, 2> sum;              // (T, D)
  Dropout dropout;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const int D = x.extent_int(1);
    const Real* const a = &x(t, 0);
    const Storage* const b = &branch(t, 0);
    Real* const out = &sum(t, 0);
    if (dropout.probability == 0.0) {
      for_each_in(team, D, [&](const int d) { out[d] = a[d] + static_cast<Real>(b[d]); });
    } else {
      const std::int64_t first = std::int64_t{dropout.rows.token(t)} * D;
      for_each_in(team, D, [&](const int d) {
        out[d] = a[d] + kept(dropout, first + d, static_cast<Real>(b[d]));
      });
    }
  }
};

template <class Storage>
struct BranchGradient {
  using Real = Accum<Storage>;

  Tensor<const Real, 2> dsum;  // (T, D)
  Tensor<Storage, 2> dbranch;  // (T, D)
  Dropout dropout;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const int D = dsum.extent_int(1);
    const Real* const from = &dsum(t, 0);
    Storage* const to = &dbranch(t, 0);
    if (dropout.probability == 0.0) {
      for_each_in(team, D, [&](const int d) { to[d] = Storage(from[d]); });
    } else {
      const std::int64_t first = std::int64_t{dropout.rows.token(t)} * D;
      for_each_in(team, D,
                  [&](const int d) { to[d] = Storage(kept(dropout, first + d, from[d])); });
    }
  }
};

}  // namespace

Dropout Dropout::at(std::uint64_t place) const {
  return {probability, random_bits(key, place), rows};
}

template <class Storage>
void add_branch(const Exec& exec, const Tensor<const Accum<Storage>, 2>& x,
                const Tensor<const Storage, 2>& branch, const Tensor<Accum<Storage>, 2>& sum,
                const Dropout& dropout) {
  Kokkos::parallel_for("residual::add_branch", row_policy(exec, x.extent_int(0)),
                       AddBranch<Storage>{x, branch, sum, dropout});
}

template <class Storage>
void branch_gradient(const Exec& exec, const Tensor<const Accum<Storage>, 2>& dsum,
                     const Tensor<Storage, 2>& dbranch, const Dropout& dropout) {
  Kokkos::parallel_for("residual::branch_gradient", row_policy(exec, dsum.extent_int(0)),
                       BranchGradient<Storage>{dsum, dbranch, dropout});
}

#define QNEXT_INSTANTIATE(Storage)                                                            \
  template void add_branch<Storage>(const Exec&, const Tensor<const Accum<Storage>, 2>&,      \
                                    const Tensor<const Storage, 2>&,                          \
                                    const Tensor<Accum<Storage>, 2>&, const Dropout&);        \
  template void branch_gradient<Storage>(const Exec&, const Tensor<const Accum<Storage>, 2>&, \
                                         const Tensor<Storage, 2>&, const Dropout&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
