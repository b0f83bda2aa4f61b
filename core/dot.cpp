// SPDX-License-Identifier: Apache-2.0
#include "core/dot.hpp"

#include "core/bf16.hpp"
#include "core/vector.hpp"

namespace qnext {

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
      const int at = i + chain * lanes;
      sum[chain] += read<Real>(a + at) * read<Real>(b + at);
    }
  }
  for (; i + lanes <= n; i += lanes) {
    sum[0] += read<Real>(a + i) * read<Real>(b + i);
  }
  Real total = sum_of_lanes<Real>((sum[0] + sum[1]) + (sum[2] + sum[3]));
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
