// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

#include <cstddef>
#include <cstdint>

/// Gradients of a group of parameters lie in bytes; here they are numbers.
namespace qnext::gradient_numbers {

using Bytes = Tensor<std::byte, 1>;

/// The bytes as numbers [bytes / sizeof(Real)].
template <class Real>
Tensor<Real, 1> numbers(const Bytes& bytes) {
  return Tensor<Real, 1>(reinterpret_cast<Real*>(bytes.data()), bytes.extent(0) / sizeof(Real));
}

/// sum += part, both of the same length.
template <class Real>
void add_numbers(const Exec& exec, const Bytes& sum_bytes, const Bytes& part_bytes) {
  const auto sum = numbers<Real>(sum_bytes), part = numbers<Real>(part_bytes);
  Kokkos::parallel_for(
      "gradients::add",
      Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, sum.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t i) { sum(i) += part(i); });
}

}  // namespace qnext::gradient_numbers
