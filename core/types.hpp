// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/bf16.hpp"

#include <Kokkos_Core.hpp>

#include <cstdint>
#include <string_view>
#include <type_traits>

namespace qnext {

using Exec = Kokkos::DefaultExecutionSpace;

/// What sums are held in: float for bf16 and float, double for double.
template <class Storage>
using Accum = std::conditional_t<std::is_same_v<Storage, double>, double, float>;

namespace detail {
template <class T, int Rank>
struct Pointer : Pointer<T*, Rank - 1> {};
template <class T>
struct Pointer<T, 0> {
  using type = T;
};
}  // namespace detail

/// Row-major on every backend: files, MPI buffers, vendor libraries and kernels see the same bytes.
template <class T, int Rank>
using Tensor =
    Kokkos::View<typename detail::Pointer<T, Rank>::type, Kokkos::LayoutRight, Exec::memory_space>;

/// The same, in memory that the host can read.
template <class T, int Rank>
using HostTensor =
    Kokkos::View<typename detail::Pointer<T, Rank>::type, Kokkos::LayoutRight, Kokkos::HostSpace>;

/// Memory of one team, gone when the team is.
template <class T, int Rank>
using Scratch = Kokkos::View<typename detail::Pointer<T, Rank>::type, Kokkos::LayoutRight,
                             Exec::scratch_memory_space, Kokkos::MemoryUnmanaged>;

enum class DataType { bf16, float32, float64 };

template <class T>
constexpr DataType data_type_of() {
  using Value = std::remove_const_t<T>;
  static_assert(std::is_same_v<Value, bf16> || std::is_same_v<Value, float> ||
                std::is_same_v<Value, double>);
  if constexpr (std::is_same_v<Value, bf16>) {
    return DataType::bf16;
  } else if constexpr (std::is_same_v<Value, float>) {
    return DataType::float32;
  } else {
    return DataType::float64;
  }
}

constexpr int size_of(DataType type) {
  return type == DataType::bf16 ? 2 : type == DataType::float32 ? 4 : 8;
}

/// What sums over values of `type` are held in: Accum<Storage> for a type known at run time.
constexpr DataType accum_of(DataType type) {
  return type == DataType::float64 ? DataType::float64 : DataType::float32;
}

/// "bf16", "float" or "double": the words of the deck's `precision`.
std::string_view name_of(DataType type);

/// The type of that name; an InputError names the three.
DataType data_type_named(std::string_view name);

}  // namespace qnext
