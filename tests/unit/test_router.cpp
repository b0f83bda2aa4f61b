// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/router.hpp"
#include "tests/reference/experts.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace qnext {
namespace {

template <class Real>
Routing<Real> make_routing(const std::vector<double>& logits, int T, int E, int K) {
  return {.probabilities = test::to_device<Real>(logits, T, E),
          .log_sum = test::nan_tensor<Real>(T),
          .selected = Tensor<int, 2>("selected", T, K),
          .weights = test::nan_tensor<Real>(T, K)};
}

struct Case {
  int T, E, K;
  bool renormalise;
};

class Router : public testing::TestWithParam<Case> {};

// The reduced logit is exact to eps of the largest logit L, exp to 4 eps, the sum of E terms to
// E eps, a product and a division follow: relative (2 L + E + 8) eps, twice that renormalised.
template <class Real>
void expect_definition(const Case& n) {
  const auto logits = test::rounded<Real>(test::uniform(n.T * n.E, -3.0, 3.0, 7));
  const reference::ExpertsShape shape{n.T, 0, n.E, n.K, 0, 0, n.renormalise};
  const auto expected = reference::route(shape, logits);
  const auto routing = make_routing<Real>(logits, n.T, n.E, n.K);
  route<Real>(Exec{}, n.renormalise, routing);
  const double bound = 2.0 * (6.0 + n.E + 8.0) * test::epsilon_of<Real>();
  // The sum is common to all experts of a token and changes no order.
  ASSERT_GT(expected.smallest_gap, 2.0 * 14.0 * test::epsilon_of<Real>());
  const auto probabilities = test::to_host(routing.probabilities);
  const auto weights = test::to_host(routing.weights);
  const auto selected = test::to_host(routing.selected);
  const auto log_sum = test::to_host(routing.log_sum);
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    ASSERT_NEAR(probabilities[i], expected.probabilities[i], bound) << i;
  }
  for (std::size_t i = 0; i < weights.size(); ++i) {
    ASSERT_EQ(selected[i], expected.selected[i]) << i;
    ASSERT_NEAR(weights[i], expected.weights[i], bound) << i;
  }
  for (int t = 0; t < n.T; ++t) {
    ASSERT_NEAR(log_sum[t], expected.log_sum[t], 10.0 * bound) << t;
  }
}

TEST_P(Router, EqualsTheDefinitionInDouble) {
  expect_definition<double>(GetParam());
}
TEST_P(Router, EqualsTheDefinitionInFloat) {
  expect_definition<float>(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Shapes, Router,
                         testing::Values(Case{1, 8, 2, true}, Case{37, 6, 3, false},
                                         Case{5, 1, 1, true}, Case{3, 4, 4, true},
                                         Case{21, 33, 7, false}, Case{8, 512, 10, true}));

// What the router chose, given back to it in another order and with a choice that it would not
// make.
TEST(Router, ReplaysGivenExperts) {
  const std::vector<double> logits = {0, 2, 1, 3,  //
                                      5, 4, 1, 0};
  const auto own = make_routing<double>(logits, 2, 4, 2);
  route<double>(Exec{}, true, own);
  ASSERT_EQ(test::to_host(own.selected), (std::vector<double>{3, 1, 0, 1}));
  auto replayed = make_routing<double>(logits, 2, 4, 2);
  replayed.given = true;
  const std::vector<int> experts = {1, 3, 2, 0};
  Kokkos::deep_copy(replayed.selected, HostTensor<const int, 2>(experts.data(), 2, 2));
  route<double>(Exec{}, true, replayed);
  EXPECT_EQ(test::to_host(replayed.selected), (std::vector<double>{1, 3, 2, 0}));
  const auto mine = test::to_host(own.weights), theirs = test::to_host(replayed.weights);
  EXPECT_EQ(theirs[0], mine[1]);
  EXPECT_EQ(theirs[1], mine[0]);
  EXPECT_EQ(test::to_host(own.probabilities), test::to_host(replayed.probabilities));
  // Two of the softmax: the weight of expert 2 beside expert 0 is 1 / (1 + e^4), to a few eps.
  EXPECT_NEAR(theirs[2], 1.0 / (1.0 + std::exp(4.0)), 20.0 * test::epsilon_of<double>());
}

TEST(Router, BreaksTiesByTheLowestIndex) {
  const auto routing = make_routing<float>({1, 1, 1, 1, 1, 1,  //
                                            0, 2, 1, 2, 1, 1},
                                           2, 6, 3);
  route<float>(Exec{}, true, routing);
  EXPECT_EQ(test::to_host(routing.selected), (std::vector<double>{0, 1, 2, 1, 3, 2}));
}

TEST(Router, KeepsIndicesValidForBadNumbers) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto routing = make_routing<float>({nan, 1, nan, 1}, 1, 4, 3);
  route<float>(Exec{}, true, routing);
  for (const double e : test::to_host(routing.selected)) {
    EXPECT_TRUE(e >= 0 && e < 4);
  }
}

}  // namespace
}  // namespace qnext
