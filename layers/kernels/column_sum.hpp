// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

namespace qnext {

/// sum(d) += partial(0, d) + partial(1, d) + ... over the first `rows` rows, in that order: the
/// second half of a reduction over tokens whose first half left one row for each fixed block of
/// tokens. An empty sum is not wanted: the weight is frozen.
template <class Real>
void add_column_sums(const Exec& exec, const Tensor<const Real, 2>& partial, int rows,
                     const Tensor<Real, 1>& sum) {
  if (sum.data() == nullptr) {
    return;
  }
  const int D = sum.extent_int(0);
  Kokkos::parallel_for(
      "column_sum::add", Kokkos::RangePolicy<Exec>(exec, 0, D), KOKKOS_LAMBDA(const int d) {
        Real total = 0;
        for (int row = 0; row < rows; ++row) {
          total += partial(row, d);
        }
        sum(d) += total;
      });
}

}  // namespace qnext
