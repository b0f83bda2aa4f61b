// SPDX-License-Identifier: Apache-2.0
#include "layers/embedding.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

// Copies and sums of at most four numbers of at most 9 bits: exact in float.
TEST(Embedding, GathersRowsAndAddsTheirGradients) {
  const int V = 6, D = 131, T = 7;
  ParameterTable table;
  Embedding<float> embedding(table, "embedding", V, D, 0.02);
  table.lay_out();
  std::vector<double> w(V * D), dy(T * D);
  for (int i = 0; i < V * D; ++i) {
    w[i] = i;
  }
  for (int i = 0; i < T * D; ++i) {
    dy[i] = i % 509;
  }
  Kokkos::deep_copy(table.values<float>(table.rows()[0]), test::to_device<float>(w, V * D));
  const std::vector<int> ids = {5, 0, 5, 3, 5, 0, 5};
  const Tensor<int, 1> tokens("tokens", T);
  for (int t = 0; t < T; ++t) {
    Kokkos::deep_copy(Kokkos::subview(tokens, t), ids[t]);
  }
  const auto y = test::nan_tensor<float>(T, D);
  embedding.forward(Exec{}, tokens, y);
  const auto rows = test::to_host(y);
  Kokkos::deep_copy(table.gradients<float>(table.rows()[0]), 1.0f);  // gradients are added
  embedding.backward(Exec{}, tokens, test::to_device<float>(dy, T, D));
  const auto gradient = test::to_host(table.gradients<float>(table.rows()[0]));
  std::vector<double> expected(V * D, 1.0);
  for (int t = 0; t < T; ++t) {
    for (int d = 0; d < D; ++d) {
      ASSERT_EQ(rows[t * D + d], w[ids[t] * D + d]);
      expected[ids[t] * D + d] += dy[t * D + d];
    }
  }
  EXPECT_EQ(gradient, expected);
}

}  // namespace
}  // namespace qnext
