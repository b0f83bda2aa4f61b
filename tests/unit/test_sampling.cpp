// SPDX-License-Identifier: Apache-2.0
#include "app/sampling.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

namespace qnext {
namespace {

// Logarithms of these are the logits: probabilities at temperature 1.
const std::vector<double> shares{0.1, 0.4, 0.2, 0.3};

std::vector<double> logits_of(const std::vector<double>& p) {
  std::vector<double> logits;
  for (const double x : p) {
    logits.push_back(std::log(x));
  }
  return logits;
}

void expect_shares(const std::vector<double>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    // log and exp are right to 1 ulp of numbers below 3, the sum has four terms.
    EXPECT_NEAR(actual[i], expected[i], 16 * 2.3e-16) << i;
  }
}

TEST(Sampling, GreedyTakesTheLowestOfEquals) {
  const std::vector<double> logits{1.0, 3.0, 3.0, 2.0};
  EXPECT_EQ(sample(logits, {.temperature = 0.0}, 0), 1);
  EXPECT_EQ(probabilities(logits, {.temperature = 0.0}), (std::vector<double>{0, 1, 0, 0}));
}

TEST(Sampling, TemperatureOneGivesTheModelsProbabilities) {
  expect_shares(probabilities(logits_of(shares), {}), shares);
}

TEST(Sampling, TemperatureHalfSquaresTheProbabilities) {
  expect_shares(probabilities(logits_of(shares), {.temperature = 0.5}),
                {0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3});
}

TEST(Sampling, TopKKeepsTheKMostProbable) {
  expect_shares(probabilities(logits_of(shares), {.top_k = 2}), {0, 0.4 / 0.7, 0, 0.3 / 0.7});
  expect_shares(probabilities(logits_of(shares), {.top_k = 9}), shares);
}

TEST(Sampling, TopPKeepsTheSmallestSetThatHoldsTheShare) {
  expect_shares(probabilities(logits_of(shares), {.top_p = 0.69}), {0, 0.4 / 0.7, 0, 0.3 / 0.7});
  expect_shares(probabilities(logits_of(shares), {.top_p = 0.71}),
                {0, 0.4 / 0.9, 0.2 / 0.9, 0.3 / 0.9});
  expect_shares(probabilities(logits_of(shares), {.top_p = 1e-9}), {0, 1, 0, 0});
}

TEST(Sampling, TopKComesBeforeTopP) {
  // Of 0.4 and 0.3, which top-k leaves, the first holds 0.571.
  expect_shares(probabilities(logits_of(shares), {.top_k = 2, .top_p = 0.57}), {0, 1, 0, 0});
}

TEST(Sampling, EqualSeedsAndCountsGiveEqualTokens) {
  const auto logits = logits_of(shares);
  int changes = 0;
  for (std::uint64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(sample(logits, {.seed = 7}, i), sample(logits, {.seed = 7}, i));
    changes += sample(logits, {.seed = 7}, i) != sample(logits, {.seed = 8}, i);
  }
  EXPECT_GT(changes, 0);
}

TEST(Sampling, DrawsFollowTheProbabilities) {
  const auto logits = logits_of(shares);
  const int draws = 20000;
  std::vector<int> counts(shares.size(), 0);
  for (int i = 0; i < draws; ++i) {
    ++counts[sample(logits, {.seed = 3}, i)];
  }
  for (std::size_t t = 0; t < shares.size(); ++t) {
    // A count is binomial; five deviations are passed once in 1.7 million seeds.
    const double bound = 5.0 * std::sqrt(draws * shares[t] * (1.0 - shares[t]));
    EXPECT_NEAR(counts[t], draws * shares[t], bound) << t;
  }
}

}  // namespace
}  // namespace qnext
