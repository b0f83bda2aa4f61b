// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/rotary.hpp"
#include "tests/gradient/check.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

// loss(x, w) = sum(dy norm_and_rotate(x, w)) over the first W channels of heads with longer rows.
class RotaryGradient : public testing::Test {
 protected:
  static constexpr int T = 131;  // three blocks of tokens, the last with three
  static constexpr int H = 3, W = 22, stride = 44, rotary = 8;

  RotaryGradient() { rotary_angles<double>(Exec{}, documents.position, 1e3, rotation); }

  HeadNorm<double> operands(const std::vector<double>& at_x, const std::vector<double>& at_w) {
    return {test::to_device(at_x, T, H, stride), test::to_device(at_w, W), rotation, 1e-6};
  }

  double loss(const std::vector<double>& at_x, const std::vector<double>& at_w) {
    const auto y = test::nan_tensor(T, H, W);
    norm_and_rotate<double>(Exec{}, operands(at_x, at_w), y);
    const auto values = test::to_host(y);
    double sum = 0.0;
    for (int row = 0; row < T * H; ++row) {
      for (int c = 0; c < W; ++c) {
        sum += values[row * W + c] * dy[row * stride + c];
      }
    }
    return sum;
  }

  const Documents documents = test::documents({100, 31});
  const Tensor<double, 2> rotation = test::nan_tensor(T, rotary);
  const std::vector<double> x = test::uniform(T * H * stride, -1.0, 1.0, 1);
  const std::vector<double> w = test::uniform(W, -0.3, 0.3, 2);
  const std::vector<double> dy = test::uniform(T * H * stride, -1.0, 1.0, 3);
};

TEST_F(RotaryGradient, IsTheDerivative) {
  const auto gradient = test::to_device(dy, T, H, stride);  // draw is the memory of dout
  const Tensor<double, 1> dw("dw", W);
  norm_and_rotate_backward<double>(Exec{}, operands(x, w), gradient, gradient,
                                   test::nan_tensor(head_norm_blocks(T), W), dw);
  auto dx = test::to_host(gradient);
  auto u = test::uniform(T * H * stride, -1.0, 1.0, 4);
  for (int row = 0; row < T * H; ++row) {
    for (int c = W; c < stride; ++c) {
      ASSERT_EQ(dx[row * stride + c], dy[row * stride + c]) << "what lies behind a head is touched";
      u[row * stride + c] = 0.0;
    }
  }
  test::expect_second_order(
      "x", [&](const auto& at) { return loss(at, w); }, x, dx, u);
  // Linear in w: central differences are exact but for the rounding of sums of T H W terms.
  double slope = 0.0;
  const auto direction = test::uniform(W, -1.0, 1.0, 5);
  const auto gradient_w = test::to_host(dw);
  auto ahead = w, behind = w;
  for (int c = 0; c < W; ++c) {
    slope += gradient_w[c] * direction[c];
    ahead[c] += 0.5 * direction[c];
    behind[c] -= 0.5 * direction[c];
  }
  const double terms = T * H * W;
  EXPECT_NEAR(loss(x, ahead) - loss(x, behind), slope, terms * 8.0 * terms * 0x1.0p-52);
}

}  // namespace
}  // namespace qnext
