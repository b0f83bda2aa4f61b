// SPDX-License-Identifier: Apache-2.0
#include "app/sampling.hpp"
#include "core/random.hpp"
#include "core/require.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
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

TEST(Sampling, MinPKeepsTokensNearTheMostProbable) {
  expect_shares(probabilities(logits_of(shares), {.min_p = 0.7}), {0, 0.4 / 0.7, 0, 0.3 / 0.7});
  expect_shares(probabilities(logits_of(shares), {.min_p = 1.0}), {0, 1, 0, 0});
}

TEST(Sampling, RepetitionPenaltyMakesTokensLessProbableWhateverTheirSign) {
  std::vector<double> logits{2.0, -2.0, 3.0, 0.0, -1.0};
  penalise(logits, std::vector<int>{0, 0, 1}, std::vector<int>{1, 3}, {.repetition_penalty = 2.0});
  EXPECT_EQ(logits, (std::vector<double>{1.0, -4.0, 3.0, 0.0, -1.0}));
}

TEST(Sampling, PresencePenaltyCountsWhatWasWrittenOnce) {
  std::vector<double> logits{2.0, -2.0, 3.0};
  penalise(logits, std::vector<int>{0}, std::vector<int>{2, 1, 2}, {.presence_penalty = 0.5});
  EXPECT_EQ(logits, (std::vector<double>{2.0, -2.5, 2.5}));
}

// The rules one after the other on the whole vocabulary, sorted each time.
std::vector<double> definition(const std::vector<double>& logits, const Sampling& sampling) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  if (sampling.top_k > 0 && sampling.top_k < static_cast<int>(order.size())) {
    order.resize(sampling.top_k);
  }
  const auto softmax = [&] {
    std::vector<double> p;
    double total = 0.0;
    for (const int token : order) {
      p.push_back(std::exp(logits[token] / sampling.temperature));
      total += p.back();
    }
    for (double& x : p) {
      x /= total;
    }
    return p;
  };
  double sum = 0.0;
  const auto before_top_p = softmax();
  for (std::size_t i = 0; sampling.top_p < 1.0 && i < before_top_p.size(); ++i) {
    sum += before_top_p[i];
    if (sum >= sampling.top_p) {
      order.resize(i + 1);
      break;
    }
  }
  const auto before_min_p = softmax();
  for (std::size_t i = 0; i < before_min_p.size(); ++i) {
    if (before_min_p[i] < sampling.min_p * before_min_p[0]) {
      order.resize(i);
      break;
    }
  }
  std::vector<double> result(logits.size(), 0.0);
  const auto p = softmax();
  for (std::size_t i = 0; i < p.size(); ++i) {
    result[order[i]] = p[i];
  }
  return result;
}

// Exponents of at most 12 and sums of 301 terms: relative errors of at most (2 x 12 + 2 x 301)
// epsilon either way. Shares are far from the borders of the rules: none of the 301 x 300 sums is
// that near to one.
TEST(Sampling, EqualsThePlainDefinition) {
  std::vector<double> logits(301);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits[i] = 12.0 * random_uniform(7, i) - 6.0;
  }
  logits[17] = logits[200];
  for (const double temperature : {0.3, 1.0, 2.0}) {
    for (const int top_k : {0, 1, 5, 40, 400}) {
      for (const double top_p : {0.05, 0.6, 0.95, 1.0}) {
        for (const double min_p : {0.0, 0.01, 0.2}) {
          const Sampling sampling{
              .temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = min_p};
          const auto p = probabilities(logits, sampling), wanted = definition(logits, sampling);
          for (std::size_t i = 0; i < p.size(); ++i) {
            ASSERT_NEAR(p[i], wanted[i], 626 * 2 * 0x1.0p-52 * wanted[i])
                << "token " << i << " of T " << temperature << " k " << top_k << " p " << top_p
                << " min " << min_p;
          }
        }
      }
    }
  }
}

TEST(Sampling, ADrawIsTheTokenWhoseShareTheNumberIsIn) {
  const std::vector<double> p{0.0, 0.25, 0.0, 0.5, 0.25, 0.0};
  EXPECT_EQ(draw(p, 0.0), 1);
  EXPECT_EQ(draw(p, 0.2499), 1);
  EXPECT_EQ(draw(p, 0.25), 3);
  EXPECT_EQ(draw(p, 0.7499), 3);
  EXPECT_EQ(draw(p, 0.75), 4);
  EXPECT_EQ(draw(p, 0.9999), 4);
}

// Pearson's statistic of n draws over d + 1 tokens is near chi-square with d degrees of freedom,
// every expected count being large, and P(chi-square > d + 2 sqrt(d x) + 2 x) < exp(-x) (Laurent
// and Massart): x = ln 1e6 fails for one seed in a million.
TEST(Sampling, DrawsFollowTheProbabilities) {
  const double x = std::log(1e6);
  const int draws = 40000;
  std::vector<double> logits;
  for (int i = 0; i < 40; ++i) {
    logits.push_back(2.0 * random_uniform(3, i));
  }
  for (const Sampling& sampling :
       {Sampling{.seed = 3}, Sampling{.temperature = 0.6, .seed = 4},
        Sampling{.top_k = 7, .seed = 5}, Sampling{.top_p = 0.7, .seed = 6},
        Sampling{.min_p = 0.4, .seed = 7}}) {
    std::vector<int> counts(logits.size(), 0);
    for (int i = 0; i < draws; ++i) {
      ++counts[sample(logits, sampling, i)];
    }
    const auto p = probabilities(logits, sampling);
    double statistic = 0.0;
    int freedom = -1;
    for (std::size_t t = 0; t < p.size(); ++t) {
      if (p[t] == 0.0) {
        EXPECT_EQ(counts[t], 0) << t;
        continue;
      }
      EXPECT_GT(draws * p[t], 50.0);
      ++freedom;
      const double difference = counts[t] - draws * p[t];
      statistic += difference * difference / (draws * p[t]);
    }
    EXPECT_LT(statistic, freedom + 2.0 * std::sqrt(freedom * x) + 2.0 * x);
    EXPECT_GT(statistic, 0.0);
  }
}

// What stays of drafts from q, and what is drawn in their place, has the probabilities p; the bound
// is that of the draws above.
TEST(Sampling, DraftsLeaveTheProbabilities) {
  const double x = std::log(1e6);
  const int draws = 40000;
  for (const double likeness : {0.0, 0.5, 1.0}) {
    std::vector<double> ours, theirs;
    for (int i = 0; i < 30; ++i) {
      ours.push_back(2.0 * random_uniform(3, i));
      theirs.push_back(likeness * ours[i] + (1.0 - likeness) * 2.0 * random_uniform(4, i));
    }
    const Sampling sampling{.top_k = 25, .seed = 9};
    const auto p = probabilities(ours, sampling), q = probabilities(theirs, sampling);
    std::vector<int> counts(p.size(), 0);
    int stayed = 0;
    for (int i = 0; i < draws; ++i) {
      const int draft = draw(q, uniform_of(sampling, Draw::draft, i));
      const bool stay = stays(p, q, draft, uniform_of(sampling, Draw::acceptance, i));
      stayed += stay;
      ++counts[stay ? draft : draw(without_draft(p, q), uniform_of(sampling, Draw::token, i))];
    }
    double statistic = 0.0;
    int freedom = -1;
    for (std::size_t t = 0; t < p.size(); ++t) {
      if (p[t] == 0.0) {
        EXPECT_EQ(counts[t], 0) << t;
        continue;
      }
      ++freedom;
      const double difference = counts[t] - draws * p[t];
      statistic += difference * difference / (draws * p[t]);
    }
    EXPECT_LT(statistic, freedom + 2.0 * std::sqrt(freedom * x) + 2.0 * x);
    EXPECT_EQ(stayed == draws, likeness == 1.0);
  }
}

TEST(Sampling, OfGreedyChoicesADraftStaysIfItIsTheChoice) {
  const Sampling greedy{.temperature = 0.0};
  const auto p = probabilities(std::vector<double>{1.0, 3.0, 2.0}, greedy);
  const auto q = probabilities(std::vector<double>{1.0, 2.0, 3.0}, greedy);
  EXPECT_TRUE(stays(p, p, 1, 0.999));
  EXPECT_FALSE(stays(p, q, 2, 0.0));
  EXPECT_EQ(draw(without_draft(p, q), 0.5), 1);
}

TEST(Sampling, HasNoTokenForLogitsThatAreNotFinite) {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  for (const double bad : {std::nan(""), infinite, -infinite}) {
    for (const double temperature : {0.0, 1.0}) {
      const Sampling sampling{.temperature = temperature};
      const std::vector<double> logits{1.0, bad, 2.0};
      EXPECT_THROW(probabilities(logits, sampling), BadNumberError);
      try {
        sample(logits, sampling, 0);
        ADD_FAILURE() << bad << " at temperature " << temperature;
      } catch (const BadNumberError& error) {
        EXPECT_TRUE(std::string(error.what()).starts_with("the logit of token 1 is "))
            << error.what();
      }
    }
  }
}

}  // namespace
}  // namespace qnext
