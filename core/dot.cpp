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

namespace {

// `width` rows at once share the reading of b, and their sums do not wait for each other.
template <int width, class Real, class A, class B>
void some_rows(int n, const A* a, const B* b, Real* sums) {
  constexpr int lanes = Lanes<Real>::count;
  typename Lanes<Real>::Vector sum[width] = {};
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto right = read<Real>(b + i);
#pragma GCC unroll 4
    for (int r = 0; r < width; ++r) {
      const A* const from = a + std::int64_t{r} * n + i;
      prefetch_ahead(from);
      sum[r] += read<Real>(from) * right;
    }
  }
  for (int r = 0; r < width; ++r) {
    Real total = sum_of_lanes<Real>(sum[r]);
    for (int j = i; j < n; ++j) {
      total += static_cast<Real>(a[std::int64_t{r} * n + j]) * static_cast<Real>(b[j]);
    }
    sums[r] = total;
  }
}

}  // namespace

template <class Real, class A, class B>
void dot_rows_on_cpu(int rows, int n, const A* a, const B* b, Real* sums) {
  constexpr int width = 4;
  int r = 0;
  for (; r + width <= rows; r += width) {
    some_rows<width>(n, a + std::int64_t{r} * n, b, sums + r);
  }
  for (; r < rows; ++r) {
    some_rows<1>(n, a + std::int64_t{r} * n, b, sums + r);
  }
}

#define QNEXT_INSTANTIATE(Real, A, B)                            \
  template Real dot_on_cpu<Real, A, B>(int, const A*, const B*); \
  template void dot_rows_on_cpu<Real, A, B>(int, int, const A*, const B*, Real*);
QNEXT_INSTANTIATE(double, double, double)
QNEXT_INSTANTIATE(float, float, float)
QNEXT_INSTANTIATE(float, float, bf16)
QNEXT_INSTANTIATE(float, bf16, float)
QNEXT_INSTANTIATE(float, bf16, bf16)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
