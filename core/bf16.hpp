// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Kokkos_Macros.hpp>

#include <cstdint>

namespace qnext {

/// The upper half of a float, 16 bits on every backend (Kokkos' own type is `float` on host
/// builds). Storage only: it is widened to float before any arithmetic and rounded to nearest even
/// once.
struct bf16 {
  std::uint16_t bits;

  bf16() = default;

  KOKKOS_INLINE_FUNCTION explicit bf16(float value) {
    union {
      float real;
      std::uint32_t word;
    } view{value};
    const std::uint32_t rounded = view.word + 0x7fffu + ((view.word >> 16) & 1u);
    const std::uint32_t quiet_nan = view.word | 0x400000u;
    const bool is_nan = (view.word & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<std::uint16_t>((is_nan ? quiet_nan : rounded) >> 16);
  }
  KOKKOS_INLINE_FUNCTION explicit bf16(double value) : bf16(static_cast<float>(value)) {}
  KOKKOS_INLINE_FUNCTION explicit bf16(int value) : bf16(static_cast<float>(value)) {}

  KOKKOS_INLINE_FUNCTION operator float() const {
    union {
      std::uint32_t word;
      float real;
    } view{static_cast<std::uint32_t>(bits) << 16};
    return view.real;
  }
};

static_assert(sizeof(bf16) == 2);

}  // namespace qnext
