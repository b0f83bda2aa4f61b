// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/rotary.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

using reference::AttentionShape;

template <class Storage>
class Rotary : public testing::Test {};
using Storages = testing::Types<bf16, float, double>;
TYPED_TEST_SUITE(Rotary, Storages);

// The norm commits W rounding errors in the sum of squares and a few more, the rotation as many as
// the angle is off: position * frequency is rounded twice, and n is at most sqrt(W) (1 + w). At the
// end comes one rounding to Storage.
template <class Storage>
void compare(const AttentionShape& n, int heads, int stride, int first_position) {
  using Real = Accum<Storage>;
  const int T = n.tokens();
  const auto x = test::rounded<Storage>(test::uniform(T * heads * stride, -1.0, 1.0, 1));
  const auto weight = test::rounded<Real>(test::uniform(n.W, -0.5, 0.5, 2));
  const auto documents =
      make_documents(n.lengths, 1, std::vector<int>(n.lengths.size(), first_position));
  const auto rotation = test::nan_tensor<Real>(T, n.rotary);
  const auto out = test::nan_tensor<Storage>(T, heads, n.W);
  rotary_angles<Real>(Exec{}, documents.position, n.base, rotation);
  norm_and_rotate<Storage>(
      Exec{},
      {test::to_device<Storage>(x, T, heads, stride), test::to_device<Real>(weight, n.W), rotation,
       static_cast<Real>(n.epsilon)},
      out);
  const auto actual = test::to_host(out);
  const auto position = reference::positions(n.lengths);
  const double largest = 1.5 * std::sqrt(static_cast<double>(n.W));
  const double last = first_position + *std::max_element(n.lengths.begin(), n.lengths.end());
  const double bound =
      largest * ((n.W + 2.0 * last + 8.0) * test::epsilon_of<Real>() + test::epsilon_of<Storage>());
  for (int row = 0; row < T * heads; ++row) {
    const auto expected = reference::norm_and_rotate(n, &x[row * stride], weight,
                                                     first_position + position[row / heads]);
    for (int w = 0; w < n.W; ++w) {
      ASSERT_NEAR(actual[row * n.W + w], expected[w], bound) << "row " << row << ", channel " << w;
    }
  }
}

TYPED_TEST(Rotary, EqualsTheDefinition) {
  compare<TypeParam>({.lengths = {1}, .H = 1, .G = 1, .W = 8, .rotary = 8}, 1, 8, 0);
  compare<TypeParam>({.lengths = {5, 1, 70}, .H = 3, .G = 1, .W = 24, .rotary = 8}, 3, 48, 0);
  compare<TypeParam>({.lengths = {3}, .H = 2, .G = 1, .W = 20, .rotary = 0}, 2, 20, 0);
  compare<TypeParam>({.lengths = {9}, .H = 2, .G = 1, .W = 256, .rotary = 64, .base = 1e7}, 2, 512,
                     0);
}

// At large positions a wrong pairing or frequency shows in every channel.
TYPED_TEST(Rotary, IsRightFarInADocument) {
  compare<TypeParam>({.lengths = {20, 33}, .H = 2, .G = 1, .W = 32, .rotary = 16}, 2, 32, 1500);
}

// A rotation by the difference of the positions: q_i . k_j depends on i - j alone.
TEST(RotaryAngles, AreRelative) {
  const int W = 16, T = 40;
  const auto x = test::uniform(W, -1.0, 1.0, 3);
  std::vector<double> rows;
  for (int t = 0; t < T; ++t) {
    rows.insert(rows.end(), x.begin(), x.end());
  }
  const auto product = [&](int first, int i, int j) {
    const auto rotation = test::nan_tensor(T, W);
    const auto out = test::nan_tensor(T, 1, W);
    rotary_angles<double>(Exec{}, make_documents({T}, 1, {first}).position, 1e4, rotation);
    norm_and_rotate<double>(
        Exec{}, {test::to_device(rows, T, 1, W), Tensor<double, 1>("w", W), rotation, 1e-6}, out);
    const auto y = test::to_host(out);
    double sum = 0.0;
    for (int w = 0; w < W; ++w) {
      sum += y[i * W + w] * y[j * W + w];
    }
    return sum;
  };
  EXPECT_NEAR(product(0, 37, 5), product(1000, 34, 2), 1e3 * W * 4 * 0x1.0p-52);
}

}  // namespace
}  // namespace qnext
