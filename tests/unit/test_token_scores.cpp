// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/token_scores.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace qnext {
namespace {

struct Scores {
  std::vector<double> log_probability, best;
};

// Rows in the other order than tokens, and the first row once more.
template <class Real>
Scores scored(const std::vector<double>& logits, const std::vector<int>& tokens, int V) {
  const int N = static_cast<int>(tokens.size()), R = static_cast<int>(logits.size()) / V;
  const auto log_probability = test::nan_tensor<double>(N);
  const Tensor<int, 1> best("best", N), device_tokens("tokens", N), rows("rows", N);
  std::vector<int> row_of;
  for (int n = 0; n < N; ++n) {
    row_of.push_back(n < R ? R - 1 - n : 0);
  }
  Kokkos::deep_copy(best, -7);
  Kokkos::deep_copy(device_tokens, HostTensor<const int, 1>(tokens.data(), N));
  Kokkos::deep_copy(rows, HostTensor<const int, 1>(row_of.data(), N));
  score_tokens<Real>(Exec{}, test::to_device<Real>(logits, R, V), rows, device_tokens,
                     log_probability, best);
  return {test::to_host(log_probability), test::to_host(best)};
}

// The differences of logits are rounded once, by at most eps times the largest of them; the
// exponential and the sum of the float form are taken in double.
template <class Real>
void expect_definition(int R, int V) {
  const auto logits = test::rounded<Real>(test::uniform(std::int64_t{R} * V, -8.0, 8.0, 3));
  std::vector<int> tokens;
  for (int n = 0; n <= R; ++n) {
    tokens.push_back((n * 7 + 3) % V);
  }
  const Scores found = scored<Real>(logits, tokens, V);
  for (int n = 0; n <= R; ++n) {
    const double* const row = &logits[static_cast<std::size_t>(n < R ? R - 1 - n : 0) * V];
    double sum = 0.0;
    for (int v = 0; v < V; ++v) {
      sum += std::exp(row[v]);
    }
    EXPECT_NEAR(found.log_probability[n], row[tokens[n]] - std::log(sum),
                32.0 * test::epsilon_of<Real>() + V * test::epsilon_of<double>());
    EXPECT_EQ(found.best[n], std::max_element(row, row + V) - row);
  }
}

TEST(TokenScores, EqualTheDefinition) {
  for (const int V : {1, 2, 15, 16, 17, 1001}) {
    expect_definition<double>(5, V);
    expect_definition<float>(5, V);
  }
}

TEST(TokenScores, OfEqualsTheFirstIsBest) {
  EXPECT_EQ(scored<float>({1, 3, 3, 2, 3}, {0}, 5).best[0], 1.0);
  EXPECT_EQ(scored<float>({2, 2, 2}, {2}, 3).best[0], 0.0);
}

// exp of these logits overflows in every type.
TEST(TokenScores, TakesLargeLogits) {
  EXPECT_EQ(scored<double>({5000.0, 4000.0}, {1}, 2).log_probability[0], -1000.0);
  EXPECT_EQ(scored<float>({5000.0, 4000.0}, {0}, 2).log_probability[0], 0.0);
}

}  // namespace
}  // namespace qnext
