// SPDX-License-Identifier: Apache-2.0
#include "core/dot.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace qnext {
namespace {

// n products and n - 1 sums, each rounded once, of numbers below 1: n times n eps.
template <class Real, class A, class B>
void expect_sum(int n) {
  const auto a = test::rounded<A>(test::uniform(n, -1.0, 1.0, 1));
  const auto b = test::rounded<B>(test::uniform(n, -1.0, 1.0, 2));
  double expected = 0.0;
  std::vector<A> left;
  std::vector<B> right;
  for (int i = 0; i < n; ++i) {
    expected += a[i] * b[i];
    left.push_back(A(a[i]));
    right.push_back(B(b[i]));
  }
  const double actual = dot_on_cpu<Real, A, B>(n, left.data(), right.data());
  EXPECT_NEAR(actual, expected, double(n) * n * std::numeric_limits<Real>::epsilon()) << n;
}

TEST(Dot, EqualsTheDefinitionForEveryLengthAndType) {
  for (const int n : {0, 1, 7, 8, 15, 16, 17, 63, 64, 65, 200, 513}) {
    expect_sum<double, double, double>(n);
    expect_sum<float, float, float>(n);
    expect_sum<float, float, bf16>(n);
    expect_sum<float, bf16, float>(n);
    expect_sum<float, bf16, bf16>(n);
  }
}

}  // namespace
}  // namespace qnext
