// SPDX-License-Identifier: Apache-2.0
#include "layers/dense_mlp.hpp"
#include "tests/reference/experts.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace qnext {
namespace {

struct Extents {
  int T, D, F;
};

class DenseMlpForward : public testing::TestWithParam<Extents> {};

// Weights below w and inputs below 1: gate and up are below A = D w, hidden below A^2, y below
// F w A^2. Sums of D and of F terms, exp and two products: (2.2 D + F + 8) eps of that; bf16 rounds
// gate, up, hidden and y as well.
template <class Storage>
void expect_definition(const Extents& n) {
  const double size = 1.0 / std::sqrt(n.D);
  const auto weights = [&](int seed) {
    return test::rounded<Storage>(test::uniform(n.F * n.D, -size, size, seed));
  };
  const auto gate = weights(1), up = weights(2), down = weights(3);
  const auto x = test::rounded<Storage>(test::uniform(n.T * n.D, -1.0, 1.0, 4));
  ParameterTable table;
  const DenseMlp<Storage> mlp({.model_width = n.D, .width = n.F}, ProcessGrid{}, table, "mlp");
  table.lay_out();
  const auto set = [&](const char* name, const std::vector<double>& values) {
    Kokkos::deep_copy(table.values<Storage>(*table.find(name)),
                      test::to_device<Storage>(values, values.size()));
  };
  set("mlp.gate_proj.weight", gate);
  set("mlp.up_proj.weight", up);
  set("mlp.down_proj.weight", down);
  typename DenseMlp<Storage>::Saved saved{.x = {},
                                          .gate = test::nan_tensor<Storage>(n.T, n.F),
                                          .up = test::nan_tensor<Storage>(n.T, n.F)};
  typename DenseMlp<Storage>::Work work;
  work.hidden = test::nan_tensor<Storage>(n.T, n.F);
  const auto y = test::nan_tensor<Storage>(n.T, n.D);
  mlp.forward(Exec{}, test::to_device<Storage>(x, n.T, n.D), y, saved, work);
  const auto actual = test::to_host(y);
  std::vector<double> expected(n.T * n.D);
  for (int t = 0; t < n.T; ++t) {
    reference::add_swiglu(n.D, n.F, gate.data(), up.data(), down.data(), &x[t * n.D], 1.0,
                          &expected[t * n.D]);
  }
  const double A = n.D * size;
  const double stored = sizeof(Storage) == 2 ? 4.0 * test::epsilon_of<Storage>() : 0.0;
  const double bound =
      n.F * size * A * A * ((2.2 * n.D + n.F + 8) * test::epsilon_of<Accum<Storage>>() + stored);
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], bound) << "element " << i;
  }
}

TEST_P(DenseMlpForward, EqualsTheDefinitionInDouble) {
  expect_definition<double>(GetParam());
}
TEST_P(DenseMlpForward, EqualsTheDefinitionInFloat) {
  expect_definition<float>(GetParam());
}
TEST_P(DenseMlpForward, EqualsTheDefinitionInBf16) {
  expect_definition<bf16>(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Shapes, DenseMlpForward,
                         testing::Values(Extents{1, 8, 5}, Extents{37, 48, 40},
                                         Extents{130, 33, 17}));

}  // namespace
}  // namespace qnext
