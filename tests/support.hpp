// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/documents.hpp"
#include "core/fence.hpp"
#include "core/random.hpp"
#include "core/types.hpp"

#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace qnext::test {

/// Uniform numbers in [low, high); equal seeds give equal numbers on every machine.
inline std::vector<double> uniform(std::int64_t count, double low, double high,
                                   std::uint64_t seed) {
  const std::uint64_t key = random_key(seed, "test");
  std::vector<double> values(count);
  for (std::int64_t i = 0; i < count; ++i) {
    values[i] = low + (high - low) * random_uniform(key, static_cast<std::uint64_t>(i));
  }
  return values;
}

/// What is left of the numbers when they are stored as `Storage`: the input that both sides of a
/// comparison get.
template <class Storage>
std::vector<double> rounded(std::vector<double> values) {
  for (double& value : values) {
    value = static_cast<double>(Storage(value));
  }
  return values;
}

/// Spacing of the numbers of a type at 1.
template <class T>
constexpr double epsilon_of() {
  return std::is_same_v<T, bf16> ? 0x1.0p-7 : std::numeric_limits<Accum<T>>::epsilon();
}

/// Copies into a fresh tensor of those extents, rounded to T.
template <class T = double, class... Extents>
Tensor<T, sizeof...(Extents)> to_device(const std::vector<double>& values, Extents... extents) {
  const Tensor<T, sizeof...(Extents)> tensor("test", static_cast<std::size_t>(extents)...);
  const Tensor<T, 1> flat(tensor.data(), tensor.size());
  const auto host = Kokkos::create_mirror_view(flat);
  for (std::size_t i = 0; i < tensor.size(); ++i) {
    host(i) = T(values.at(i));
  }
  Kokkos::deep_copy(flat, host);
  return tensor;
}

/// The elements in memory order, widened to double. Waits for the kernels that write them.
template <class View>
std::vector<double> to_host(const View& tensor) {
  using T = typename View::non_const_value_type;
  fence(Exec{}, "test: results are read on the host");
  const Tensor<const T, 1> flat(tensor.data(), tensor.size());
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), flat);
  std::vector<double> values(tensor.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<double>(host(i));
  }
  return values;
}

/// Fills with NaN, so that an element that a kernel forgets or reads is seen.
template <class View>
void poison(const View& tensor) {
  using T = typename View::non_const_value_type;
  const Tensor<T, 1> flat(tensor.data(), tensor.size());
  Kokkos::deep_copy(flat, T(std::numeric_limits<double>::quiet_NaN()));
}

/// A fresh tensor full of NaN.
template <class T = double, class... Extents>
Tensor<T, sizeof...(Extents)> nan_tensor(Extents... extents) {
  const Tensor<T, sizeof...(Extents)> tensor("test", static_cast<std::size_t>(extents)...);
  poison(tensor);
  return tensor;
}

inline Documents documents(const std::vector<int>& lengths) {
  return make_documents(lengths);
}

}  // namespace qnext::test
