// SPDX-License-Identifier: Apache-2.0
#include "core/parts.hpp"
#include "layers/adamw.hpp"
#include "tests/model_support.hpp"
#include "tests/mpi/rank_case.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace qnext {
namespace {

using test::config_of_ranks;
using test::part_of;
using test::RankCase;
using test::run;
using test::values_of;
using test::world;

ProcessGrid tensor_grid() {
  return ProcessGrid(Degrees{.tensor = world().ranks()}, world());
}

class Tensor : public testing::TestWithParam<RankCase> {};

TEST_P(Tensor, EqualsOneRankInDouble) {
  test::expect_equal_to_one_rank<double>(GetParam(), tensor_grid());
}
TEST_P(Tensor, EqualsOneRankInFloat) {
  test::expect_equal_to_one_rank<float>(GetParam(), tensor_grid());
}

// As many key/value heads as ranks and fewer; documents that cross the borders of ranks, several
// sequences; a mask that must not depend on the ranks.
using Form = BalanceLossConfig::Form;
INSTANTIATE_TEST_SUITE_P(
    Cases, Tensor,
    testing::Values(
        RankCase{"HeadsForAll", 4, false, Form::megatron, Recompute::none, 0.0, {23, 1, 9}, 1},
        RankCase{"Tied", 2, true, Form::maxtext, Recompute::block, 0.1, {12, 5, 17, 17}, 3},
        RankCase{"FewerTokensThanRanks", 4, false, Form::megatron, Recompute::none, 0.0, {3}, 1},
        RankCase{"ByPosition",
                 2,
                 false,
                 Form::huggingface,
                 Recompute::none,
                 0.0,
                 {12, 5, 17, 17},
                 3,
                 {Capacity::Rule::position, 0.6}},
        RankCase{"ByProbability",
                 2,
                 false,
                 Form::megatron,
                 Recompute::block,
                 0.0,
                 {12, 5, 17, 17},
                 3,
                 {Capacity::Rule::probability, 0.6}},
        RankCase{"OneKeyHead", 1, false, Form::huggingface, Recompute::mixer, 0.0, {4, 26}, 2}),
    [](const auto& info) { return info.param.name; });

// The same bits in a second pass; the losses and, of what all hold alike, the gradients are the
// same bits on all ranks.
TEST(TensorBits, DoNotDependOnChance) {
  const RankCase c{"", 1, false, Form::megatron, Recompute::none, 0.1, {23, 1, 9}, 1};
  const ProcessGrid grid = tensor_grid();
  test::ModelUnderTest<float> once(c.config(), 1, grid), again(c.config(), 1, grid);
  const test::RankResult first = run(once, c, grid), second = run(again, c, grid);
  EXPECT_EQ(first.losses, second.losses);
  EXPECT_EQ(first.gradients, second.gradients);
  const auto expect_same_on_all = [](const std::vector<double>& mine, const std::string& what) {
    const auto all = world().all_gather(mine);
    for (std::size_t i = 0; i < all.size(); ++i) {
      ASSERT_EQ(all[i], mine[i % mine.size()]) << what;
    }
  };
  expect_same_on_all(first.losses, "losses");
  int replicated = 0;
  for (std::size_t i = 0; i < first.gradients.size(); ++i) {
    const Parameter& row = once.table.rows()[i];
    if (row.elements() == row.shard.global_elements()) {
      expect_same_on_all(first.gradients[i], row.name);
      ++replicated;
    }
  }
  EXPECT_GT(replicated, 10);
}

TEST(TensorWeights, AreThoseOfOneRankBitForBit) {
  const ModelConfig config = config_of_ranks(2);
  const ProcessGrid grid = tensor_grid();
  test::ModelUnderTest<bf16> one(config), mine(config, 1, grid);
  std::vector<std::int64_t> counted;
  for (std::size_t i = 0; i < one.table.rows().size(); ++i) {
    const Parameter& row = mine.table.rows()[i];
    EXPECT_EQ(values_of(mine.table, row),
              part_of(row.shard, values_of(one.table, one.table.rows()[i])))
        << row.name;
    counted.push_back(grid.counts(row) ? row.elements() : 0);
  }
  world().sum(counted);
  for (std::size_t i = 0; i < one.table.rows().size(); ++i) {
    EXPECT_EQ(counted[i], one.table.rows()[i].elements())
        << one.table.rows()[i].name << ": every number is counted by one rank";
  }
}

TEST(TensorInBf16, RunsThrough) {
  test::expect_direction_of_one_rank(
      {"", 2, false, Form::megatron, Recompute::none, 0.0, {23, 1, 9}, 1}, tensor_grid());
}

// Bytes of the rows of N numbers that a rank sends in a gather and in a sum.
std::int64_t gathered(std::int64_t rows, std::int64_t width, std::int64_t size) {
  const int R = world().ranks(), r = world().rank();
  return (part_begin(rows, r + 1, R) - part_begin(rows, r, R)) * (R - 1) * width * size;
}
std::int64_t summed(std::int64_t rows, std::int64_t width, std::int64_t size) {
  const int R = world().ranks(), r = world().rank();
  return (rows - part_begin(rows, r + 1, R) + part_begin(rows, r, R)) * width * size;
}

// The numbers of docs/parallel.md: two gathers and a sum backward, one of each forward, for a
// mixer, a dense MLP and a shared expert.
TEST(TensorTraffic, IsWhatThePageSays) {
  ModelConfig config = config_of_ranks(2);
  config.mtp_modules = 0;
  const int T = 33, D = config.width, E = config.layer.experts.experts;
  const test::TestBatch batch({T}, config.vocabulary, 5);
  const ProcessGrid grid = tensor_grid();
  test::ModelUnderTest<double> fixture(config, 1, grid);
  const auto before = grid.tensor.traffic().kinds;
  fixture.loss(batch, true);
  const auto& after = grid.tensor.traffic().kinds;
  const auto old = before.find("exchange");
  const std::int64_t sent =
      after.at("exchange").bytes - (old == before.end() ? 0 : old->second.bytes);
  const std::int64_t half = 3 * gathered(T, D, 8) + 2 * summed(T, D, 8);
  const std::int64_t factors = 2 * gathered(T, 1, 8) + summed(T, 1, 8);  // of a shared expert
  const std::int64_t embedding = summed(T, D, 8) + gathered(T, D, 8);
  const std::int64_t head = gathered(T, D, 8) + summed(T, D, 8) + (world().ranks() - 1) * T * 3 * 8;
  std::int64_t statistics = 0;
  for (const auto& [count, size] : {std::pair{2 * E, 4}, {2 * E, 8}, {2, 8}}) {
    statistics += summed(count, 1, size) + gathered(count, 1, size);
  }
  EXPECT_EQ(sent, 6 * half + 2 * factors + embedding + head + statistics);
}

// All that is kept for backward is divided.
TEST(TensorMemory, FallsWithTheDegree) {
  ModelConfig config = config_of_ranks(4);
  config.mixers.assign(12, Mixer::delta_net);
  config.mlps.assign(12, Mlp::dense);
  config.mtp_modules = 0;
  const MicrobatchShape shape{512, 1, 1};
  std::vector<std::int64_t> saved, parameters;
  for (const int tensor : {1, 2, 4}) {
    ParameterTable table;
    const Model<float> model(config, ProcessGrid(Degrees{.tensor = tensor}), table);
    Arena plan;
    model.reserve_saved(plan, shape);
    saved.push_back(plan.peak());
    parameters.push_back(table.local_elements());
  }
  const double padding = 256.0 * 12 * 20;  // every tensor of every layer begins at such a place
  EXPECT_NEAR(static_cast<double>(saved[1]), saved[0] / 2.0, padding);
  EXPECT_NEAR(static_cast<double>(saved[2]), saved[0] / 4.0, padding);
  EXPECT_LT(parameters[2], 0.3 * static_cast<double>(parameters[0]));
}

TEST(TensorRefuses, WhatItCannotDivide) {
  const auto expect_refusal = [](const ModelConfig& config, const std::string& message) {
    ParameterTable table;
    try {
      const Model<float> model(config, tensor_grid(), table);
      ADD_FAILURE() << "not refused: " << message;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
    }
  };
  const std::string degree = "the tensor degree " + std::to_string(world().ranks());
  ModelConfig config = config_of_ranks(1);
  config.layer.attention.heads = 3;
  expect_refusal(config, "attention: heads = 3, wanted a multiple of " + degree);
  config = config_of_ranks(3);
  config.layer.attention.heads = 12;
  expect_refusal(config, "key_value_heads = 3, wanted a multiple or a divisor of " + degree);
  config = config_of_ranks(1);
  config.layer.delta_net.key_heads = config.layer.delta_net.value_heads = 3;
  expect_refusal(config, "delta net: key_heads = 3, wanted a multiple of " + degree);
  config = config_of_ranks(1);
  config.vocabulary = 1;
  expect_refusal(config, "vocabulary = 1, wanted at least " + degree);
}

}  // namespace
}  // namespace qnext
