// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string_view>
#include <vector>

namespace qnext::test {

/// Compares a hand-written gradient with central differences along one random direction u.
///
/// A wrong backward leaves an error that does not shrink with the step; a right one leaves only the
/// truncation of the difference, which falls as h^2. So we measure the order, not the size: halving
/// h must divide the error by four. Run in double and with h above the cancellation floor.
inline void expect_second_order(std::string_view what,
                                const std::function<double(const std::vector<double>&)>& loss,
                                const std::vector<double>& x, const std::vector<double>& gradient,
                                const std::vector<double>& u) {
  double slope = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    slope += gradient[i] * u[i];
  }
  const auto error = [&](double h) {
    auto ahead = x, behind = x;
    for (std::size_t i = 0; i < x.size(); ++i) {
      ahead[i] += h * u[i];
      behind[i] -= h * u[i];
    }
    return std::abs((loss(ahead) - loss(behind)) / (2.0 * h) - slope);
  };
  const double coarse = error(2e-3), fine = error(1e-3);
  if (coarse < 1e-9 * std::abs(slope)) {
    return;  // linear along u: the difference is exact and has no order to measure
  }
  EXPECT_LT(fine, 1e-4 * std::abs(slope)) << what << ": slope " << slope;
  EXPECT_NEAR(std::log2(coarse / fine), 2.0, 0.1) << what << ": errors " << coarse << ", " << fine;
}

/// The same for a loss that depends on many parameters, some of which bend it far more than others.
///
/// The direction is halved, from sixteen times u on, until the truncation at the smaller step is
/// below 5e-6 of the slope: far above the cancellation of a loss of order one, about 1e-13, and
/// small enough for the next term of the series. The order is measured there. A wrong gradient
/// never gets there and fails at the shortest direction.
inline void expect_second_order_at_some_length(
    std::string_view what, const std::function<double(const std::vector<double>&)>& loss,
    const std::vector<double>& x, const std::vector<double>& gradient,
    const std::vector<double>& u) {
  for (double length = 16.0;; length *= 0.5) {
    auto scaled = u, ahead = x, behind = x;
    double slope = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      scaled[i] *= length;
      ahead[i] += 1e-3 * scaled[i];
      behind[i] -= 1e-3 * scaled[i];
      slope += gradient[i] * scaled[i];
    }
    const double error = std::abs((loss(ahead) - loss(behind)) / 2e-3 - slope);
    if (error < 5e-6 * std::abs(slope) || length < 0.01) {
      expect_second_order(what, loss, x, gradient, scaled);
      return;
    }
  }
}

}  // namespace qnext::test
