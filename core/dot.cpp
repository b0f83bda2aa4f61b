// SPDX-License-Identifier: Apache-2.0
#include "core/dot.hpp"

#include "core/bf16.hpp"

#include <cstdint>
#include <cstring>

namespace qnext {
namespace {

// Vectors of the widest unit today; a narrower one takes several registers for each.
inline constexpr int vector_bytes = 64;

template <class Real>
struct Lanes {
  static constexpr int count = vector_bytes / int(sizeof(Real));
  typedef Real Vector __attribute__((vector_size(vector_bytes)));
};

template <class Real>
void load(const Real* from, typename Lanes<Real>::Vector& to) {
  std::memcpy(&to, from, sizeof to);
}

void load(const bf16* from, Lanes<float>::Vector& to) {
  typedef std::uint16_t Halves __attribute__((vector_size(vector_bytes / 2)));
  typedef std::uint32_t Words __attribute__((vector_size(vector_bytes)));
  Halves bits;
  std::memcpy(&bits, from, sizeof bits);
  const Words words = __builtin_convertvector(bits, Words) << 16;
  std::memcpy(&to, &words, sizeof to);
}

}  // namespace

template <class Real, class A, class B>
Real dot_on_cpu(int n, const A* a, const B* b) {
  using Vector = typename Lanes<Real>::Vector;
  constexpr int lanes = Lanes<Real>::count;
  constexpr int chains = 4;  // of sums: one alone waits for each of its additions
  Vector sum[chains] = {};
  int i = 0;
  for (; i + chains * lanes <= n; i += chains * lanes) {
#pragma GCC unroll 4
    for (int chain = 0; chain < chains; ++chain) {
      Vector left, right;
      load(a + i + chain * lanes, left);
      load(b + i + chain * lanes, right);
      sum[chain] += left * right;
    }
  }
  for (; i + lanes <= n; i += lanes) {
    Vector left, right;
    load(a + i, left);
    load(b + i, right);
    sum[0] += left * right;
  }
  const Vector all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  Real total = 0;
  for (int lane = 0; lane < lanes; ++lane) {
    total += all[lane];
  }
  for (; i < n; ++i) {
    total += static_cast<Real>(a[i]) * static_cast<Real>(b[i]);
  }
  return total;
}

template double dot_on_cpu<double, double, double>(int, const double*, const double*);
template float dot_on_cpu<float, float, float>(int, const float*, const float*);
template float dot_on_cpu<float, float, bf16>(int, const float*, const bf16*);
template float dot_on_cpu<float, bf16, float>(int, const bf16*, const float*);
template float dot_on_cpu<float, bf16, bf16>(int, const bf16*, const bf16*);

}  // namespace qnext
