// SPDX-License-Identifier: Apache-2.0
#include "app/flops.hpp"
#include "app/pipeline_cut.hpp"
#include "tests/model_support.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

namespace qnext {
namespace {

constexpr double length = 64.0;

// Layers as uneven as their shapes make them, without a pattern.
ModelConfig model_of(int layers, int vocabulary) {
  ModelConfig model = test::small_model_config();
  model.mixers.clear();
  model.mlps.clear();
  for (int i = 0; i < layers; ++i) {
    model.mixers.push_back(i % 3 == 1 ? Mixer::attention : Mixer::delta_net);
    model.mlps.push_back(i == 2 ? Mlp::dense : Mlp::experts);
  }
  model.vocabulary = vocabulary;
  return model;
}

std::int64_t largest_piece(const ModelConfig& model, const std::vector<int>& layers) {
  const auto costs = piece_costs(model, layers, length);
  return *std::max_element(costs.begin(), costs.end());
}

// The least that any cut has, by trying all.
std::int64_t least_of_all(const ModelConfig& model, int pieces) {
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  std::vector<int> layers(pieces);
  const std::function<void(int, int)> try_from = [&](int piece, int left) {
    if (piece + 1 == pieces) {
      layers[piece] = left;
      least = std::min(least, largest_piece(model, layers));
      return;
    }
    for (layers[piece] = 1; layers[piece] <= left; ++layers[piece]) {
      const int mine = layers[piece];
      try_from(piece + 1, left - mine);
      layers[piece] = mine;
    }
  };
  try_from(0, model.layers());
  return least;
}

TEST(PipelineCut, CostsAreThoseOfTheModel) {
  const ModelConfig model = model_of(7, 500);
  const auto costs = piece_costs(model, {3, 4, 0}, length);
  ASSERT_EQ(costs.size(), 3u);
  const auto sum =
      static_cast<double>(std::accumulate(costs.begin(), costs.end(), std::int64_t{0}));
  EXPECT_EQ(6.0 * sum, flops_per_token(model, length));
}

TEST(PipelineCut, HasTheLeastLargestStage) {
  for (const int vocabulary : {37, 2000, 20000}) {
    for (int pieces = 1; pieces <= 5; ++pieces) {
      const ModelConfig model = model_of(8, vocabulary);
      const auto cut = balanced_cut(model, pieces, 1, length);
      SCOPED_TRACE(testing::PrintToString(cut));
      EXPECT_EQ(std::accumulate(cut.begin(), cut.end(), 0), 8);
      EXPECT_EQ(largest_piece(model, cut), least_of_all(model, pieces));
    }
  }
}

// Three layers and then one, twelve times, and a head that costs next to nothing.
TEST(PipelineCut, IsBetweenCyclesWhereTheyAreEven) {
  ModelConfig model = test::small_model_config();
  model.mixers.clear();
  for (int i = 0; i < 48; ++i) {
    model.mixers.push_back(i % 4 == 3 ? Mixer::attention : Mixer::delta_net);
  }
  model.mlps.assign(48, Mlp::experts);
  model.mtp_modules = 0;
  model.vocabulary = 2;
  EXPECT_EQ(balanced_cut(model, 4, 1, length), (std::vector<int>{12, 12, 12, 12}));
  EXPECT_EQ(balanced_cut(model, 3, 2, length), (std::vector<int>{8, 8, 8, 8, 8, 8}));
  model.vocabulary = 1 << 20;
  EXPECT_EQ(balanced_cut(model, 2, 1, length), (std::vector<int>{48, 0})) << "the head costs more";
}

// The head is as large as four layers: of two stages with two chunks each, the one that has it
// takes fewer in front.
TEST(PipelineCut, BalancesStagesAndNotChunks) {
  ModelConfig model = model_of(16, 37);
  model.mixers.assign(16, Mixer::delta_net);
  model.mlps.assign(16, Mlp::experts);
  model.mtp_modules = 0;
  model.vocabulary = static_cast<int>(4.0 * layer_multiply_adds(model, 0, length) / model.width);
  const auto cut = balanced_cut(model, 2, 2, length);
  EXPECT_EQ(cut[0] + cut[2], 10);
  EXPECT_EQ(cut[1] + cut[3], 6);
}

TEST(PipelineCut, GivesStagesEveryOtherPiece) {
  const PipelineCut cut{2, 2, {3, 1, 2, 0}};
  const auto first = cut.chunks_of(0), second = cut.chunks_of(1);
  ASSERT_EQ(first.size(), 2u);
  ASSERT_EQ(second.size(), 2u);
  EXPECT_TRUE(first[0].first() && !first[0].last());
  EXPECT_EQ(first[0].begin, 0);
  EXPECT_EQ(first[0].end, 3);
  EXPECT_EQ(second[0].begin, 3);
  EXPECT_EQ(second[0].end, 4);
  EXPECT_EQ(first[1].begin, 4);
  EXPECT_EQ(first[1].end, 6);
  EXPECT_TRUE(second[1].last() && !second[1].first());
  EXPECT_EQ(second[1].layers(), 0);
}

}  // namespace
}  // namespace qnext
