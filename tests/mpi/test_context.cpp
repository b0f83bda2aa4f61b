// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "tests/mpi/rank_case.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::RankCase;
using test::world;
using Form = BalanceLossConfig::Form;

ProcessGrid context_grid() {
  return ProcessGrid(Degrees{.context = world().ranks()}, world());
}

class Context : public testing::TestWithParam<RankCase> {};

TEST_P(Context, EqualsOneRankInDouble) {
  test::expect_equal_to_one_rank<double>(GetParam(), context_grid());
}
TEST_P(Context, EqualsOneRankInFloat) {
  test::expect_equal_to_one_rank<float>(GetParam(), context_grid());
}
TEST_P(Context, EqualsOneRankBesideTensorRanks) {
  if (world().ranks() % 2 != 0 || world().ranks() == 2) {
    GTEST_SKIP() << "two tensor ranks and more than one context rank";
  }
  const ProcessGrid grid(Degrees{.tensor = 2, .context = world().ranks() / 2}, world());
  test::expect_equal_to_one_rank<double>(GetParam(), grid);
}

// Documents that fill all pieces, that end around borders and one token behind them, several
// sequences; pieces of odd length and of as many tokens as the convolution looks back; a mask that
// must not depend on the ranks; everything that is computed again; experts that drop choices, in
// which all ranks count together.
INSTANTIATE_TEST_SUITE_P(
    Cases, Context,
    testing::Values(
        RankCase{"OneDocument", 4, false, Form::megatron, Recompute::none, 0.0, {40}, 1},
        RankCase{"Packed", 2, true, Form::maxtext, Recompute::block, 0.1, {12, 5, 3, 20}, 2},
        RankCase{"OddPieces", 1, false, Form::huggingface, Recompute::mixer, 0.1, {15, 13}, 1},
        RankCase{"ByPosition",
                 2,
                 false,
                 Form::huggingface,
                 Recompute::none,
                 0.0,
                 {12, 5, 3, 20},
                 2,
                 {Capacity::Rule::position, 0.6}},
        RankCase{"ByProbability",
                 2,
                 false,
                 Form::megatron,
                 Recompute::block,
                 0.0,
                 {12, 5, 3, 20},
                 2,
                 {Capacity::Rule::probability, 0.6}},
        RankCase{"ShortPieces", 4, false, Form::megatron, Recompute::none, 0.0, {5, 3, 8}, 2}),
    [](const auto& info) { return info.param.name; });

// The same bits in a second pass.
TEST(ContextBits, DoNotDependOnChance) {
  const RankCase c{"", 2, false, Form::megatron, Recompute::block, 0.1, {12, 5, 3, 20}, 2};
  const ProcessGrid grid = context_grid();
  test::ModelUnderTest<float> once(c.config(), 1, grid), again(c.config(), 1, grid);
  const test::RankResult first = run(once, c, grid), second = run(again, c, grid);
  EXPECT_EQ(first.losses, second.losses);
  EXPECT_EQ(first.gradients, second.gradients);
}

TEST(ContextInBf16, RunsThrough) {
  test::expect_direction_of_one_rank(
      {"", 2, false, Form::megatron, Recompute::none, 0.0, {12, 5, 3, 20}, 2}, context_grid());
}

// Activations of a rank: a C-th of the tokens and, for each sequence, the states that pass.
TEST(ContextMemory, FallsWithTheDegree) {
  const RankCase c{"", 2, false, Form::megatron, Recompute::none, 0.0, {}, 1};
  ModelConfig config = c.config();
  config.layer.delta_net.chunk = 16;
  const auto planned = [&](int context) {
    ParameterTable table;
    const Model<float> model(config, ProcessGrid{Degrees{.context = context}}, table);
    Arena plan;
    const MicrobatchShape shape{4096 / context, 1, 1};
    model.reserve_saved(plan, shape);
    model.reserve_work(plan, shape);
    return plan.peak();
  };
  const double one = static_cast<double>(planned(1));
  EXPECT_LT(planned(2), 0.65 * one);
  EXPECT_LT(planned(4), 0.35 * one);
}

template <class Call>
void expect_refused(const Call& call, const std::string& words) {
  try {
    call();
    FAIL() << "accepted, wanted: " << words;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST(ContextRefuses, WhatItDoesNotDivide) {
  const RankCase c{"", 2, false, Form::megatron, Recompute::none, 0.0, {8}, 1};
  const ProcessGrid grid = context_grid();
  test::ModelUnderTest<float> fixture(c.config(), 1, grid);
  const test::TestBatch batch = c.batch().on(grid);
  fixture.reserve(batch.shape());
  Model<float>::State state;
  expect_refused(
      [&] { fixture.model.step(Exec{}, batch.batch, state, fixture.saved, fixture.work); },
      "decoding is not divided over context ranks");
}

}  // namespace
}  // namespace qnext
