// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Kokkos_Macros.hpp>

#include <cmath>
#include <cstdint>

namespace qnext {

/// e^x for float by Cody-Waite reduction and a polynomial of degree 6, in operations that every
/// compiler turns into vector instructions: relative error below 2 ulp. Results below 2^-125 become
/// zero, above the largest float infinite; NaN stays NaN.
KOKKOS_FORCEINLINE_FUNCTION float exp(float x) {
  const float lowest = -86.6f, highest = 88.7228f;
  const float bounded = x < lowest ? lowest : x > highest ? highest : x;
  const float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const float n = (bounded * 1.44269504f + to_integer) - to_integer;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  union {
    std::int32_t word;
    float real;
  } half_power{(static_cast<std::int32_t>(n) + 126) << 23};  // 2^(n - 1): n reaches 128
  const float value = p * half_power.real * 2.0f;
  return x < lowest ? 0.0f : x > highest ? HUGE_VALF : value;
}
KOKKOS_INLINE_FUNCTION double exp(double x) {
  return std::exp(x);
}

KOKKOS_INLINE_FUNCTION float log(float x) {
  return std::log(x);
}
KOKKOS_INLINE_FUNCTION double log(double x) {
  return std::log(x);
}
KOKKOS_INLINE_FUNCTION float sqrt(float x) {
  return std::sqrt(x);
}
KOKKOS_INLINE_FUNCTION double sqrt(double x) {
  return std::sqrt(x);
}
KOKKOS_INLINE_FUNCTION float abs(float x) {
  return std::fabs(x);
}
KOKKOS_INLINE_FUNCTION double abs(double x) {
  return std::fabs(x);
}

template <class Real>
KOKKOS_INLINE_FUNCTION Real max(Real a, Real b) {
  return a < b ? b : a;
}
template <class Real>
KOKKOS_INLINE_FUNCTION Real min(Real a, Real b) {
  return b < a ? b : a;
}

/// 1 / (1 + e^-x)
template <class Real>
KOKKOS_FORCEINLINE_FUNCTION Real sigmoid(Real x) {
  return Real(1) / (Real(1) + exp(-x));
}

/// x sigmoid(x)
template <class Real>
KOKKOS_FORCEINLINE_FUNCTION Real silu(Real x) {
  return x * sigmoid(x);
}

/// d silu(x) / dx = s (1 + x (1 - s)) with s = sigmoid(x)
template <class Real>
KOKKOS_FORCEINLINE_FUNCTION Real silu_derivative(Real x) {
  const Real s = sigmoid(x);
  return s * (Real(1) + x * (Real(1) - s));
}

/// log(1 + e^x) without overflow
template <class Real>
KOKKOS_INLINE_FUNCTION Real softplus(Real x) {
  return (x > Real(0) ? x : Real(0)) + std::log1p(std::exp(x > Real(0) ? -x : x));
}

}  // namespace qnext
