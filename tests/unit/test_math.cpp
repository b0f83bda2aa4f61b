// SPDX-License-Identifier: Apache-2.0
#include "core/math.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace qnext {
namespace {

// The distance to the true value in units of the spacing of floats there.
double ulps(float actual, double expected) {
  const int exponent = std::ilogb(expected);
  return std::abs(actual - expected) / std::ldexp(1.0, exponent - 23);
}

// Every 1009th float between the bounds inside which the result is a normal number, of both signs.
TEST(Exp, IsWithinTwoSpacingsOfTheTruth) {
  double worst = 0.0;
  float at = 0.0f;
  for (std::uint32_t word = 0; word < std::bit_cast<std::uint32_t>(88.7228f); word += 1009) {
    for (const float x : {std::bit_cast<float>(word), -std::bit_cast<float>(word)}) {
      if (x < -86.6f) {
        continue;
      }
      const double error = ulps(qnext::exp(x), std::exp(double(x)));
      if (error > worst) {
        worst = error;
        at = x;
      }
    }
  }
  EXPECT_LT(worst, 2.0) << "at " << at;
}

TEST(Exp, KeepsTheSpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(qnext::exp(0.0f), 1.0f);
  EXPECT_EQ(qnext::exp(-infinity), 0.0f);
  EXPECT_EQ(qnext::exp(-87.0f), 0.0f);
  EXPECT_EQ(qnext::exp(infinity), infinity);
  EXPECT_EQ(qnext::exp(89.0f), infinity);
  EXPECT_TRUE(std::isnan(qnext::exp(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_EQ(qnext::exp(1.0), std::exp(1.0));
}

// Each is a few operations on an exponential that is right to 2 spacings: 8 in all.
template <class Real>
class Activations : public testing::Test {};
using Reals = testing::Types<double, float>;
TYPED_TEST_SUITE(Activations, Reals);

TYPED_TEST(Activations, EqualTheirDefinitions) {
  using Real = TypeParam;
  const double eps = std::numeric_limits<Real>::epsilon();
  for (int i = -8000; i <= 8000; ++i) {
    const Real x = Real(i) / Real(100);
    const double sigmoid = 1.0 / (1.0 + std::exp(-double(x)));
    ASSERT_NEAR(qnext::sigmoid(x), sigmoid, 8 * eps * sigmoid) << x;
    ASSERT_NEAR(silu(x), x * sigmoid, 8 * eps * std::abs(x * sigmoid)) << x;
    // The second term cancels the first around its zero: the bound is that of the larger one.
    const double larger = sigmoid * (1.0 + std::abs(x));
    ASSERT_NEAR(silu_derivative(x), sigmoid * (1.0 + x * (1.0 - sigmoid)), 8 * eps * larger) << x;
    const double softplus =
        x > 0 ? x + std::log1p(std::exp(-double(x))) : std::log1p(std::exp(double(x)));
    ASSERT_NEAR(qnext::softplus(x), softplus, 8 * eps * softplus) << x;
  }
}

}  // namespace
}  // namespace qnext
