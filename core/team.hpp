// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

namespace qnext {

#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
inline constexpr bool device_backend = true;
#else
inline constexpr bool device_backend = false;
#endif

using RowPolicy = Kokkos::TeamPolicy<Exec>;
using RowTeam = RowPolicy::member_type;

/// A team for each of `rows` rows: one thread with vector instructions on a CPU, 128 lanes on a
/// GPU.
inline RowPolicy row_policy(const Exec& exec, int rows) {
  return device_backend ? RowPolicy(exec, rows, 128, 1) : RowPolicy(exec, rows, 1, 1);
}

/// f(i) for all i < n, in any order, by the lanes of the team. Ends without a barrier.
template <class F>
KOKKOS_FORCEINLINE_FUNCTION void for_each_in(const RowTeam& team, int n, const F& f) {
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, n), f);
#else
  (void)team;
#pragma GCC ivdep
  for (int i = 0; i < n; ++i) {
    f(i);
  }
#endif
}

/// The sum of term(i) over all i < n, the same in every lane. The order of summation depends on n
/// alone: on a CPU sixteen interleaved partial sums, which the compiler keeps in one vector
/// register.
template <class Real, class Term>
KOKKOS_FORCEINLINE_FUNCTION Real sum_over(const RowTeam& team, int n, const Term& term) {
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
  Real sum = 0;
  Kokkos::parallel_reduce(
      Kokkos::TeamThreadRange(team, n), [&](const int i, Real& partial) { partial += term(i); },
      sum);
  return sum;
#else
  (void)team;
  constexpr int lanes = 16;
  Real partial[lanes] = {};
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (int lane = 0; lane < lanes; ++lane) {
      partial[lane] += term(i + lane);
    }
  }
  for (int lane = 0; i + lane < n; ++lane) {
    partial[lane] += term(i + lane);
  }
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) {
      partial[lane] += partial[lane + half];
    }
  }
  return partial[0];
#endif
}

/// The largest term(i) over all i < n, not less than `least`, the same in every lane.
template <class Real, class Term>
KOKKOS_FORCEINLINE_FUNCTION Real max_over(const RowTeam& team, int n, Real least,
                                          const Term& term) {
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
  Real largest = least;
  Kokkos::parallel_reduce(
      Kokkos::TeamThreadRange(team, n),
      [&](const int i, Real& partial) {
        const Real value = term(i);
        partial = partial < value ? value : partial;
      },
      Kokkos::Max<Real>(largest));
  return largest < least ? least : largest;
#else
  (void)team;
  constexpr int lanes = 16;
  Real partial[lanes];
  for (int lane = 0; lane < lanes; ++lane) {
    partial[lane] = least;
  }
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (int lane = 0; lane < lanes; ++lane) {
      const Real value = term(i + lane);
      partial[lane] = partial[lane] < value ? value : partial[lane];
    }
  }
  for (int lane = 0; i + lane < n; ++lane) {
    const Real value = term(i + lane);
    partial[lane] = partial[lane] < value ? value : partial[lane];
  }
  Real largest = partial[0];
  for (int lane = 1; lane < lanes; ++lane) {
    largest = largest < partial[lane] ? partial[lane] : largest;
  }
  return largest;
#endif
}

}  // namespace qnext
