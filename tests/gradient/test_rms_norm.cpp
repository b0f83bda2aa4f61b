// SPDX-License-Identifier: Apache-2.0
#include "layers/rms_norm.hpp"
#include "tests/gradient/check.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

// loss(x, w) = sum(y dy): its gradients are what backward returns for dy.
class RmsNormGradient : public testing::Test {
 protected:
  static constexpr int T = 131;  // three blocks of rows, the last with three
  static constexpr int D = 37;

  RmsNormGradient() : norm(table, "norm", D, 1e-6) { table.lay_out(); }

  void set_weight(const std::vector<double>& w) {
    Kokkos::deep_copy(table.values<double>(table.rows()[0]), test::to_device(w, D));
  }

  double loss(const std::vector<double>& x, const std::vector<double>& w) {
    set_weight(w);
    const auto y = test::nan_tensor(T, D);
    norm.forward<double>(Exec{}, test::to_device(x, T, D), y, {});
    const auto values = test::to_host(y);
    double sum = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      sum += values[i] * dy[i];
    }
    return sum;
  }

  ParameterTable table;
  RmsNorm<double> norm;
  const std::vector<double> x = test::uniform(T * D, -1.0, 1.0, 1);
  const std::vector<double> w = test::uniform(D, -0.3, 0.3, 2);
  const std::vector<double> dy = test::uniform(T * D, -1.0, 1.0, 3);
};

TEST_F(RmsNormGradient, IsTheDerivative) {
  set_weight(w);
  const auto device_x = test::to_device(x, T, D);
  const auto scale = test::nan_tensor(T);
  norm.forward<double>(Exec{}, device_x, test::nan_tensor(T, D), scale);
  const auto dx = test::nan_tensor(T, D);
  Arena plan;
  norm.reserve_work(plan, T);
  Arena arena(plan.peak());
  norm.backward<double>(Exec{}, test::to_device(dy, T, D), device_x, scale, dx, Write::replace,
                        norm.reserve_work(arena, T));
  test::expect_second_order(
      "x", [&](const std::vector<double>& at) { return loss(at, w); }, x, test::to_host(dx),
      test::uniform(T * D, -1.0, 1.0, 4));
  const auto dw = test::to_host(table.gradients<double>(table.rows()[0]));
  // y is linear in w: central differences are exact but for the rounding of sums of T D terms.
  double slope = 0.0;
  const auto u = test::uniform(D, -1.0, 1.0, 5);
  auto ahead = w, behind = w;
  for (int d = 0; d < D; ++d) {
    slope += dw[d] * u[d];
    ahead[d] += 0.5 * u[d];
    behind[d] -= 0.5 * u[d];
  }
  EXPECT_NEAR(loss(x, ahead) - loss(x, behind), slope, T * D * 4.0 * T * D * 0x1.0p-52);
}

TEST_F(RmsNormGradient, AddsWhereAsked) {
  const auto device_x = test::to_device(x, T, D);
  const auto scale = test::nan_tensor(T);
  set_weight(w);
  norm.forward<double>(Exec{}, device_x, test::nan_tensor(T, D), scale);
  Arena plan;
  norm.reserve_work(plan, T);
  Arena arena(plan.peak());
  const auto work = norm.reserve_work(arena, T);
  const auto replaced = test::nan_tensor(T, D);
  const auto added = test::to_device(x, T, D);
  const auto gradient = test::to_device(dy, T, D);
  norm.backward<double>(Exec{}, gradient, device_x, scale, replaced, Write::replace, work);
  norm.backward<double>(Exec{}, gradient, device_x, scale, added, Write::add, work);
  norm.backward<double>(Exec{}, gradient, device_x, scale, gradient, Write::replace,
                        work);  // dx may be dy
  const auto alone = test::to_host(replaced), sum = test::to_host(added);
  const auto in_place = test::to_host(gradient);
  for (std::size_t i = 0; i < alone.size(); ++i) {
    ASSERT_NEAR(sum[i], x[i] + alone[i], 4e-16 * (1.0 + std::abs(alone[i])));
    ASSERT_EQ(in_place[i], alone[i]);
  }
}

}  // namespace
}  // namespace qnext
