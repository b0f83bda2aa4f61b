// SPDX-License-Identifier: Apache-2.0
#include "layers/capacity_over_ranks.hpp"
#include "tests/experts_layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace qnext {
namespace {

/// A routing that was decided elsewhere, sorted and cut.
struct Cut {
  Routing<double> routing;
  ExpertRows rows;

  Cut(const std::vector<int>& selected, const std::vector<double>& weights, int S, int T, int E,
      int K, const Capacity& capacity) {
    const std::vector<double> experts(selected.begin(), selected.end());
    routing.selected = test::to_device<int>(experts, T, K);
    routing.weights = test::to_device(weights, T, K);
    rows = {.place = Tensor<int, 2>("place", T, K), .offset = Tensor<int, 1>("offset", E + 1)};
    const Tensor<int, 2> blocks("blocks", S * (T / S + 31), E);
    const Tensor<int, 2> count("count", S, E);
    sort_by_expert(Exec{}, S, routing.selected, Choices::all, rows, blocks, count);
    const CapacityOverRanks<double> alone(capacity, ProcessGrid{});
    Arena plan;
    alone.reserve_work(plan, {T, S, S}, E, K);
    Arena arena(plan.peak());
    alone.drop(Exec{}, count, routing, rows, alone.reserve_work(arena, {T, S, S}, E, K));
    sort_by_expert(Exec{}, S, routing.selected, Choices::kept, rows, blocks);
  }
};

// The worked example of MaxText's tests: four sequences of four tokens, two of eight experts each,
// factor 2, hence two tokens for an expert in a sequence. Only the weights 0.78 and 0.89 are given.
TEST(Capacity, DropsByPositionAsInTheGoldenExample) {
  const std::vector<int> selected{0, 5, 0, 4, 1, 0, 3, 5,  //
                                  1, 2, 4, 1, 5, 0, 7, 1,  //
                                  6, 2, 2, 3, 4, 2, 1, 2,  //
                                  4, 1, 0, 7, 5, 0, 4, 7};
  std::vector<double> weights(32, 0.5);
  weights[4] = 0.78;
  weights[5] = 0.22;
  weights[14] = 0.89;
  weights[15] = 0.11;
  const Capacity capacity{Capacity::Rule::position, 2.0};
  EXPECT_EQ(capacity.limit(4, 8, 2), 2);
  const Cut cut(selected, weights, 4, 16, 8, 2, capacity);
  auto expected = weights;
  for (const int dropped : {5, 15, 21, 23}) {
    expected[dropped] = 0.0;
  }
  EXPECT_EQ(test::to_host(cut.routing.weights), expected);  // 0.78 and 0.89 as they were
  const auto place = test::to_host(cut.rows.place);
  for (int c = 0; c < 32; ++c) {
    EXPECT_EQ(place[c] < 0, expected[c] == 0.0) << "choice " << c;
  }
  EXPECT_EQ(test::to_host(cut.rows.offset),
            (std::vector<double>{0, 5, 10, 13, 15, 20, 24, 25, 28}));
}

TEST(Capacity, HasTheLimitsOfBothRules) {
  const Capacity position{Capacity::Rule::position, 1.25};
  EXPECT_EQ(position.limit(128, 8, 2), 40);
  EXPECT_EQ(position.limit(3, 8, 2), 1);  // max(1 * 1.25, 1.25), rounded down
  const Capacity probability{Capacity::Rule::probability, 1.25};
  EXPECT_EQ(probability.limit(32, 8, 2), 10);
  EXPECT_EQ(probability.limit(3, 8, 2), 1);
  EXPECT_EQ(probability.limit(33, 8, 2), 11);  // 10.3125
}

TEST(Capacity, KeepsTheMostProbableAndTheLowerTokenOfEquals) {
  const std::vector<int> selected{0, 0, 0, 0, 0, 1};
  const Cut cut(selected, {0.3, 0.9, 0.4, 0.9, 0.4, 0.1}, 1, 6, 2, 1,
                {Capacity::Rule::probability, 1.0});  // 3 tokens for an expert
  EXPECT_EQ(test::to_host(cut.routing.weights),
            (std::vector<double>{0.0, 0.9, 0.4, 0.9, 0.0, 0.1}));
  EXPECT_EQ(test::to_host(cut.rows.place), (std::vector<double>{-1, 0, 1, 2, -1, 3}));
}

// Megatron's invariants: at most the capacity for each expert, nothing dropped from an expert that
// has room, everything kept where the capacity exceeds the tokens, and the counts of the balance
// loss are those before dropping.
TEST(Capacity, KeepsTheInvariants) {
  const reference::ExpertsShape n{96, 16, 6, 2, 4, 0, true};
  auto w = test::expert_weights(n, 51);
  const auto x = test::uniform(n.T * n.D, -1.0, 1.0, 7);
  for (const auto rule : {Capacity::Rule::position, Capacity::Rule::probability}) {
    for (const double factor : {0.5, 1.0, 2.0, 100.0}) {
      const int S = rule == Capacity::Rule::position ? 2 : 1;
      const Capacity capacity{rule, factor};
      test::ExpertsLayer<double> layer(n, S, capacity);
      layer.set(w);
      layer.forward(x);
      const int limit = capacity.limit(n.T / S, n.E, n.K);
      const auto before = test::to_host(layer.saved.statistics.count);
      const auto selected = layer.selected();
      const auto weights = test::to_host(layer.saved.routing.weights);
      std::vector<double> kept(S * n.E);
      for (std::size_t c = 0; c < selected.size(); ++c) {
        const int s = static_cast<int>(c) / n.K / (n.T / S);
        kept[s * n.E + static_cast<int>(selected[c])] += weights[c] > 0.0 ? 1 : 0;
      }
      double sum = 0.0;
      for (std::size_t i = 0; i < kept.size(); ++i) {
        EXPECT_EQ(kept[i], std::min<double>(before[i], limit));
        sum += before[i];
      }
      EXPECT_EQ(sum, n.T * n.K);
    }
  }
}

// What a capacity drops is as if its weight had been zero.
TEST(Capacity, LeavesTheOtherExpertsOfATokenAsTheyAre) {
  const reference::ExpertsShape n{40, 24, 5, 2, 8, 12, true};
  auto w = test::expert_weights(n, 61);
  const auto x = test::uniform(n.T * n.D, -1.0, 1.0, 8);
  test::ExpertsLayer<double> layer(n, 1, {Capacity::Rule::probability, 0.75});
  layer.set(w);
  const auto y = layer.forward(x);
  auto routing = reference::route(n, w, x);
  const auto weights = test::to_host(layer.saved.routing.weights);
  for (std::size_t c = 0; c < weights.size(); ++c) {
    if (weights[c] == 0.0) {
      routing.weights[c] = 0.0;
    }
  }
  const auto expected = reference::experts(n, w, routing, x);
  // Values below 8 and sums of about 24 + 8 + 12 terms, each a few roundings.
  for (std::size_t i = 0; i < y.size(); ++i) {
    ASSERT_NEAR(y[i], expected[i], 8.0 * 100 * 0x1.0p-52);
  }
}

}  // namespace
}  // namespace qnext
