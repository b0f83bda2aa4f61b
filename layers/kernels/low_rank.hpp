// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/require.hpp"
#include "core/types.hpp"

#include <cstdint>
#include <string>

namespace qnext {

/// The first rows of the memory that the adapters of a layer share: low (T, r), of which (rows, r).
template <class Storage>
Tensor<Storage, 2> low_rows(const Tensor<Storage, 2>& low, int rows) {
  require(low.extent_int(0) >= rows, "adapter: memory for " + std::to_string(low.extent_int(0)) +
                                         " tokens, wanted for " + std::to_string(rows));
  return Tensor<Storage, 2>(low.data(), rows, low.extent(1));
}

/// low *= scale, in Accum<Storage>.
template <class Storage>
void scale_by(const Exec& exec, double scale, const Tensor<Storage, 2>& low) {
  using Real = Accum<Storage>;
  const auto factor = static_cast<Real>(scale);
  Storage* const numbers = low.data();
  Kokkos::parallel_for(
      "adapter::scale",
      Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, low.size()),
      KOKKOS_LAMBDA(const std::int64_t i) {
        numbers[i] = Storage(factor * static_cast<Real>(numbers[i]));
      });
}

}  // namespace qnext
