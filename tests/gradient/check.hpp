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

}  // namespace qnext::test
