// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/team.hpp"

#include <cstdint>

namespace qnext {

/// sum_i a[i] b[i] by the vector units of one CPU thread, at the speed of memory. The order of the
/// sum depends on n alone. Real is float or double; a and b are of that type or, for float, bf16.
template <class Real, class A, class B>
Real dot_on_cpu(int n, const A* a, const B* b);

/// sum_i a[i] b[i] by the lanes of a team, the same in each.
template <class Real, class A, class B>
KOKKOS_FORCEINLINE_FUNCTION Real dot(const RowTeam& team, int n, const A* a, const B* b) {
  if constexpr (device_backend) {
    return sum_over<Real>(
        team, n, [&](const int i) { return static_cast<Real>(a[i]) * static_cast<Real>(b[i]); });
  } else {
    return dot_on_cpu<Real, A, B>(n, a, b);
  }
}

/// sums[r] = sum_i a[r n + i] b[i] for some rows of a, by one CPU thread at the speed of memory.
/// The order of a sum depends on n alone.
template <class Real, class A, class B>
void dot_rows_on_cpu(int rows, int n, const A* a, const B* b, Real* sums);

/// The same by the lanes of a team, in each of which `sums` are its own.
template <class Real, class A, class B>
KOKKOS_FORCEINLINE_FUNCTION void dot_rows(const RowTeam& team, int rows, int n, const A* a,
                                          const B* b, Real* sums) {
  if constexpr (device_backend) {
    for (int r = 0; r < rows; ++r) {
      sums[r] = dot<Real>(team, n, a + static_cast<std::int64_t>(r) * n, b);
    }
  } else {
    dot_rows_on_cpu<Real, A, B>(rows, n, a, b, sums);
  }
}

}  // namespace qnext
