// SPDX-License-Identifier: Apache-2.0
#include "layers/rms_norm.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace qnext {
namespace {

struct Extents {
  int T, D;
};

class RmsNormForward : public testing::TestWithParam<Extents> {};

// Definition in double. In float the mean of D squares has at most D roundings, the root halves
// them, and three products follow; |y| is below 2 sqrt(D) for weights below 1.
template <class In, class Storage>
void expect_definition(const Extents& n) {
  using Real = Accum<Storage>;
  ParameterTable table;
  const double epsilon = 1e-6;
  RmsNorm<Storage> norm(table, "norm", n.D, epsilon);
  table.lay_out();
  const auto x = test::rounded<In>(test::uniform(n.T * n.D, -2.0, 2.0, 1));
  const auto w = test::rounded<Real>(test::uniform(n.D, -0.5, 0.5, 2));
  Kokkos::deep_copy(table.values<Real>(table.rows()[0]), test::to_device<Real>(w, n.D));
  const auto y = test::nan_tensor<Storage>(n.T, n.D);
  norm.template forward<In>(Exec{}, test::to_device<In>(x, n.T, n.D), y,
                            test::nan_tensor<Real>(n.T));
  const auto actual = test::to_host(y);
  const double eps = std::numeric_limits<Real>::epsilon();
  const double bound =
      2.0 * std::sqrt(n.D) *
      ((n.D / 2 + 4) * eps + (sizeof(Storage) == 2 ? test::epsilon_of<Storage>() : 0));
  for (int t = 0; t < n.T; ++t) {
    double squares = 0.0;
    for (int d = 0; d < n.D; ++d) {
      squares += x[t * n.D + d] * x[t * n.D + d];
    }
    const double r = 1.0 / std::sqrt(squares / n.D + epsilon);
    for (int d = 0; d < n.D; ++d) {
      ASSERT_NEAR(actual[t * n.D + d], x[t * n.D + d] * r * (1.0 + w[d]), bound)
          << "token " << t << " column " << d;
    }
  }
}

TEST_P(RmsNormForward, EqualsTheDefinitionInDouble) {
  expect_definition<double, double>(GetParam());
}
TEST_P(RmsNormForward, EqualsTheDefinitionInFloat) {
  expect_definition<float, float>(GetParam());
}
TEST_P(RmsNormForward, EqualsTheDefinitionInBf16) {
  expect_definition<bf16, bf16>(GetParam());
}
TEST_P(RmsNormForward, EqualsTheDefinitionFromTheResidualStream) {
  expect_definition<float, bf16>(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNormForward,
                         testing::Values(Extents{1, 1}, Extents{1, 24}, Extents{65, 48},
                                         Extents{7, 129}, Extents{130, 512}));

}  // namespace
}  // namespace qnext
