// SPDX-License-Identifier: Apache-2.0
#include "tests/experts_layer.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

using reference::ExpertsShape;

std::vector<double> part(const std::vector<double>& all, std::size_t first, std::size_t count) {
  return {all.begin() + first, all.begin() + first + count};
}

// What an expert computes for a token does not depend on the tokens beside it: two microbatches
// give the rows of the whole one, bit for bit, if each has more than few_rows of them.
template <class Storage>
void expect_split_to_be_whole() {
  const ExpertsShape whole{170, 24, 6, 2, 12, 16, true};
  ExpertsShape head = whole, tail = whole;
  head.T = 77;
  tail.T = 93;
  auto w = test::expert_weights(whole, 5);
  const auto x = test::uniform(whole.T * whole.D, -1.0, 1.0, 1);
  const auto dy = test::uniform(whole.T * whole.D, -1.0, 1.0, 2);
  const std::size_t border = head.T * whole.D, rest = tail.T * whole.D;
  test::ExpertsLayer<Storage> all(whole), first(head), second(tail);
  all.set(w);
  first.set(w);
  second.set(w);
  const auto y = all.forward(x);
  EXPECT_EQ(first.forward(part(x, 0, border)), part(y, 0, border));
  EXPECT_EQ(second.forward(part(x, border, rest)), part(y, border, rest));
  const auto dx = all.backward(dy);
  EXPECT_EQ(first.backward(part(dy, 0, border)), part(dx, 0, border));
  EXPECT_EQ(second.backward(part(dy, border, rest)), part(dx, border, rest));
  // Gradients of weights are the same terms, added in two parts: T K of them.
  for (const auto& entry : test::by_name(w)) {
    const auto sum = all.gradient(entry.first);
    const auto one = first.gradient(entry.first), other = second.gradient(entry.first);
    double largest = 1.0;
    for (const double value : sum) {
      largest = std::max(largest, std::abs(value));
    }
    const double bound = 2.0 * whole.T * whole.K * largest * test::epsilon_of<Accum<Storage>>();
    for (std::size_t i = 0; i < sum.size(); ++i) {
      ASSERT_NEAR(one[i] + other[i], sum[i], bound) << entry.first;
    }
  }
}

TEST(ExpertsEquivalence, TwoMicrobatchesAreTheWholeInDouble) {
  expect_split_to_be_whole<double>();
}
TEST(ExpertsEquivalence, TwoMicrobatchesAreTheWholeInFloat) {
  expect_split_to_be_whole<float>();
}
TEST(ExpertsEquivalence, TwoMicrobatchesAreTheWholeInBf16) {
  expect_split_to_be_whole<bf16>();
}

TEST(ExpertsEquivalence, RecomputationGivesTheSameBits) {
  const ExpertsShape n{70, 24, 6, 2, 12, 16, true};
  auto w = test::expert_weights(n, 5);
  const auto x = test::uniform(n.T * n.D, -1.0, 1.0, 1);
  test::ExpertsLayer<float> layer(n);
  layer.set(w);
  const auto y = layer.forward(x);
  const auto probability = test::to_host(layer.saved.statistics.probability);
  EXPECT_EQ(layer.forward(x), y);
  EXPECT_EQ(test::to_host(layer.saved.statistics.probability), probability);
}

// Decoding computes a token alike, whether alone or beside others.
TEST(ExpertsEquivalence, TokensDecodedTogetherAreTokensDecodedAlone) {
  const ExpertsShape n{5, 24, 6, 2, 12, 16, true};
  ExpertsShape one = n;
  one.T = 1;
  auto w = test::expert_weights(n, 5);
  const auto x = test::uniform(n.T * n.D, -1.0, 1.0, 1);
  test::ExpertsLayer<bf16> together(n), alone(one);
  together.set(w);
  alone.set(w);
  const auto y = together.step(x);
  for (int t = 0; t < n.T; ++t) {
    EXPECT_EQ(alone.step(part(x, t * n.D, n.D)), part(y, t * n.D, n.D));
  }
}

}  // namespace
}  // namespace qnext
