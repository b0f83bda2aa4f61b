// SPDX-License-Identifier: Apache-2.0
#include "app/trained_model.hpp"
#include "tests/model_support.hpp"
#include "tests/mpi/rank_case.hpp"
#include "tests/mpi/training.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::world;
using Form = BalanceLossConfig::Form;
using Scope = BalanceLossConfig::Scope;

struct Case {
  std::string name;
  Degrees degrees;
  int chunks = 1;
  std::vector<int> stage_layers;
  int microbatches = 4;  // of a step
  bool tied_head = false;
  bool mtp = false;
  BalanceLossConfig balance = {Form::megatron, Scope::microbatch, 0.01, 0.001};
  Recompute recompute = Recompute::none;
  double dropout = 0.0;
  GradientOrder order = GradientOrder::tree;

  /// Embedding and head are on two stages: their gradients are summed in another order.
  bool shares_weights() const { return tied_head || mtp; }
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

// Five layers of both kinds; sizes that two ranks divide.
RunConfig config_of(const Case& c, const Degrees& degrees) {
  RunConfig config;
  config.model = test::small_model_config();
  config.model.mixers = {Mixer::delta_net, Mixer::attention, Mixer::delta_net, Mixer::delta_net,
                         Mixer::attention};
  config.model.mlps = {Mlp::experts, Mlp::dense, Mlp::experts, Mlp::experts, Mlp::experts};
  config.model.layer.experts.experts = 6;
  config.model.tied_head = c.tied_head;
  config.model.mtp_modules = c.mtp ? 1 : 0;
  config.model.balance = c.balance;
  config.model.recompute = c.recompute;
  config.run.dropout = c.dropout;
  config.run.gradient_order = c.order;
  config.mtp_loss = c.mtp ? 0.3 : 0.0;
  config.data.sequence = 34;
  config.data.batch = c.microbatches;
  config.data.microbatch = 1;
  config.degrees = degrees;
  config.pipeline.stages = degrees.pipeline;
  if (degrees.pipeline == 1) {
    config.pipeline.layers = {5};
  } else {
    config.bucket = 20001;  // and one for everything without stages
    config.pipeline.chunks = c.chunks;
    config.pipeline.layers = c.stage_layers;
  }
  return config;
}

// Three documents, two of them longer than the convolution, for every microbatch of a step.
std::vector<TokenBatch> batches_of(const RunConfig& config, std::int64_t step, int data_place) {
  std::vector<TokenBatch> batches;
  for (int m = 0; m < config.microbatches_of_rank(); ++m) {
    const int place = data_place * config.microbatches_of_rank() + m;
    batches.push_back(test::token_batch({21 - place, 1, 12 + place}, config.model.vocabulary,
                                        100 * step + place));
  }
  return batches;
}

// A model in training on the ranks of a grid.
template <class Storage>
struct Training : test::Training<Storage> {
  Training(const Case& c, const ProcessGrid& grid)
      : test::Training<Storage>(config_of(c, grid.degrees), grid) {}

  StepNumbers gradients(std::int64_t s) {
    return test::Training<Storage>::gradients(s,
                                              batches_of(this->config, s, this->grid.place.data));
  }
  void update(std::int64_t s, const StepNumbers& numbers) {
    test::Training<Storage>::update(s, 0.01, numbers);
  }
};

template <class Storage>
std::vector<double> gradient_of(const Training<Storage>& run, const Parameter& row) {
  return test::gradient_of(run.trained.table, row);
}
template <class Storage>
std::vector<double> values_of(const Training<Storage>& run, const Parameter& row) {
  return test::values_of(run.trained.table, row);
}

void expect_equal(const StepNumbers& a, const StepNumbers& b) {
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.loss_mtp, b.loss_mtp);
  EXPECT_EQ(a.loss_balance, b.loss_balance);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.load.least, b.load.least);
  EXPECT_EQ(a.load.mean, b.load.mean);
  EXPECT_EQ(a.load.most, b.load.most);
}

// The judge is the same layout without a pipeline, on the ranks of each stage. Microbatches have
// the same arithmetic and sums over them the same order: losses, gradients, weights and the norm
// are its bits.
template <class Storage>
void expect_same_bits(const Case& c) {
  const ProcessGrid grid(c.degrees, world());
  Degrees without = c.degrees;
  without.pipeline = 1;
  const ProcessGrid of_stage(without, grid.stage);
  Training<Storage> run(c, grid), judge(c, of_stage);
  for (std::int64_t s = 1; s <= 3; ++s) {
    SCOPED_TRACE(testing::Message() << "step " << s);
    const StepNumbers numbers = run.gradients(s), wanted = judge.gradients(s);
    expect_equal(numbers, wanted);
    EXPECT_EQ(numbers.gradients.squares, wanted.gradients.squares);
    EXPECT_EQ(numbers.gradients.global, wanted.gradients.global);
    for (const Parameter& row : run.trained.table.rows()) {
      ASSERT_EQ(gradient_of(run, row), gradient_of(judge, *judge.trained.table.find(row.name)))
          << row.name;
    }
    run.update(s, numbers);
    judge.update(s, wanted);
    for (const Parameter& row : run.trained.table.rows()) {
      ASSERT_EQ(values_of(run, row), values_of(judge, *judge.trained.table.find(row.name)))
          << row.name;
    }
  }
}

class PipelineOf : public testing::TestWithParam<Case> {};

TEST_P(PipelineOf, HasTheBitsOfOneStageInDouble) {
  expect_same_bits<double>(GetParam());
}
TEST_P(PipelineOf, HasTheBitsOfOneStageInFloat) {
  expect_same_bits<float>(GetParam());
}
TEST_P(PipelineOf, HasTheBitsOfOneStageInBf16) {
  expect_same_bits<bf16>(GetParam());
}

std::string name_of_case(const testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

std::vector<Case> on_ranks(int ranks, std::vector<Case> cases) {
  std::erase_if(cases, [&](const Case& c) { return c.degrees.ranks() != ranks; });
  return cases;
}

// Layers that are coupled by the balance loss, and not; counts of the step before; chunks without a
// router and without a layer; microbatches that are no multiple of the stages, and fewer.
std::vector<Case> cases() {
  const BalanceLossConfig coupled{Form::huggingface, Scope::microbatch, 0.05, 0.001};
  const BalanceLossConfig global{Form::megatron, Scope::global, 0.05, 0.0};
  const BalanceLossConfig sequences{Form::maxtext, Scope::microbatch, 0.05, 0.001};
  return {
      {.name = "TwoStages", .degrees = {.pipeline = 2}, .stage_layers = {3, 2}},
      {.name = "Uneven",
       .degrees = {.pipeline = 2},
       .stage_layers = {5, 0},
       .microbatches = 1,
       .balance = coupled,
       .recompute = Recompute::mixer},
      {.name = "TwoChunks",
       .degrees = {.pipeline = 2},
       .chunks = 2,
       .stage_layers = {1, 1, 2, 1},
       .balance = coupled,
       .recompute = Recompute::block,
       .dropout = 0.1},
      {.name = "ThreeChunks",
       .degrees = {.pipeline = 2},
       .chunks = 3,
       .stage_layers = {1, 1, 1, 1, 1, 0},
       .microbatches = 5,
       .balance = global},
      {.name = "OneAfterTheOther",
       .degrees = {.pipeline = 2},
       .stage_layers = {1, 4},
       .microbatches = 3,
       .balance = sequences,
       .order = GradientOrder::running},
      {.name = "FourStages",
       .degrees = {.pipeline = 4},
       .stage_layers = {2, 1, 1, 1},
       .microbatches = 6,
       .balance = coupled,
       .dropout = 0.1},
      {.name = "WithData",
       .degrees = {.pipeline = 2, .data = 2},
       .chunks = 2,
       .stage_layers = {1, 2, 1, 1},
       .balance = global},
      {.name = "WithExperts",
       .degrees = {.pipeline = 2, .expert = 2, .data = 2},
       .stage_layers = {3, 2},
       .balance = coupled},
      {.name = "WithContext",
       .degrees = {.context = 2, .pipeline = 2},
       .chunks = 2,
       .stage_layers = {1, 1, 2, 1},
       .balance = coupled},
      {.name = "WithTensor",
       .degrees = {.tensor = 2, .pipeline = 2},
       .chunks = 2,
       .stage_layers = {2, 1, 1, 1},
       .balance = coupled,
       .recompute = Recompute::block},
  };
}
INSTANTIATE_TEST_SUITE_P(Cases, PipelineOf, testing::ValuesIn(on_ranks(world().ranks(), cases())),
                         name_of_case);

class PipelineWithSharedWeights : public testing::TestWithParam<Case> {};

// The embedding is on two stages, and each gathers a part of its gradient. The sum has the terms of
// one stage in another order; in float one order is off the exact sum, which double gives, about as
// much as another: at most four times. All other gradients of the first step are the same bits, and
// the two copies remain the same bits.
TEST_P(PipelineWithSharedWeights, SumsTheGradientsOfBothCopies) {
  const Case& c = GetParam();
  const ProcessGrid grid(c.degrees, world());
  Degrees without = c.degrees;
  without.pipeline = 1;
  const ProcessGrid of_stage(without, grid.stage);
  Training<float> run(c, grid), judge(c, of_stage);
  Training<double> exact(c, of_stage);
  const StepNumbers numbers = run.gradients(1), wanted = judge.gradients(1);
  exact.gradients(1);
  expect_equal(numbers, wanted);
  const std::string embedding = "model.embed_tokens.weight";
  for (const Parameter& row : run.trained.table.rows()) {
    const Parameter& other = *judge.trained.table.find(row.name);
    const auto mine = gradient_of(run, row), its = gradient_of(judge, other);
    if (row.name != embedding && row.alias_of != embedding) {
      ASSERT_EQ(mine, its) << row.name;
      continue;
    }
    const auto sum = gradient_of(exact, *exact.trained.table.find(row.name));
    EXPECT_LE(test::difference(mine, sum), 4.0 * test::difference(its, sum)) << row.name;
    EXPECT_GT(test::difference(its, sum), 0.0);
  }
  for (std::size_t i = 1; i < wanted.gradients.squares.size(); ++i) {  // the embedding is row 0
    EXPECT_EQ(numbers.gradients.squares[i], wanted.gradients.squares[i]) << "row " << i;
  }
  EXPECT_EQ(numbers.gradients.squares.size(), wanted.gradients.squares.size());

  run.update(1, numbers);
  run.update(2, run.gradients(2));
  const bool at_an_end = grid.place.pipeline == 0 || grid.place.pipeline == c.degrees.pipeline - 1;
  const Parameter* const row = run.trained.table.find(embedding);
  ASSERT_EQ(row != nullptr, at_an_end);
  const auto all = grid.pipeline.all_gather(row ? values_of(run, *row) : std::vector<double>{});
  const std::size_t half = all.size() / 2;
  EXPECT_GT(half, 0u);
  EXPECT_TRUE(std::equal(all.begin(), all.begin() + half, all.begin() + half));
}

std::vector<Case> cases_with_shared_weights() {
  return {
      {.name = "Tied", .degrees = {.pipeline = 2}, .stage_layers = {3, 2}, .tied_head = true},
      {.name = "Module",
       .degrees = {.pipeline = 2},
       .chunks = 2,
       .stage_layers = {2, 1, 1, 1},
       .mtp = true,
       .balance = {Form::huggingface, Scope::microbatch, 0.05, 0.001}},
      {.name = "BothOnFourStages",
       .degrees = {.pipeline = 4},
       .stage_layers = {2, 2, 1, 0},
       .tied_head = true,
       .mtp = true,
       .recompute = Recompute::block},
      {.name = "ModuleWithContext",
       .degrees = {.context = 2, .pipeline = 2},
       .stage_layers = {3, 2},
       .mtp = true},
      {.name = "BothWithTensor",
       .degrees = {.tensor = 2, .pipeline = 2},
       .stage_layers = {3, 2},
       .tied_head = true,
       .mtp = true},
  };
}
INSTANTIATE_TEST_SUITE_P(Cases, PipelineWithSharedWeights,
                         testing::ValuesIn(on_ranks(world().ranks(), cases_with_shared_weights())),
                         name_of_case);

// Every number of the model is counted by one rank, wherever the stages are.
TEST(PipelineParameters, AreThoseOfTheModelOnce) {
  const int P = world().ranks();
  const Case c{.name = "",
               .degrees = {.pipeline = P},
               .stage_layers = P == 2 ? std::vector<int>{3, 2} : std::vector<int>{2, 1, 1, 1},
               .tied_head = true,
               .mtp = true};
  const ProcessGrid grid(c.degrees, world());
  const Training<float> run(c, grid);
  const TrainedModel<float> whole(run.config.model, false);
  std::vector<std::int64_t> counted{0}, most{0};
  for (const Parameter& row : run.trained.table.rows()) {
    counted[0] += row.alias_of.empty() && grid.counts(row) ? row.elements() : 0;
  }
  most[0] = run.trained.table.local_elements();
  world().sum(counted);
  world().maximum(most);
  EXPECT_EQ(counted[0], whole.table.global_elements());
  EXPECT_LT(most[0], whole.table.global_elements());
}

// docs/parallel.md: the residual stream forward and its gradient back, once for each border between
// chunks; 8 bytes of losses, and the shares of E experts each way where the loss couples layers.
TEST(PipelineTraffic, IsWhatThePageSays) {
  const int P = world().ranks(), M = 4;
  Case c{.name = "",
         .degrees = {.pipeline = P},
         .chunks = P == 2 ? 2 : 1,
         .stage_layers = {2, 1, 1, 1},
         .microbatches = M,
         .balance = {Form::huggingface, Scope::microbatch, 0.05, 0.0}};
  const ProcessGrid grid(c.degrees, world());
  Training<float> run(c, grid);
  const auto sent = [&] {
    const auto& kinds = grid.world.traffic().kinds;
    const auto found = kinds.find("send");
    return found == kinds.end() ? std::int64_t{0} : found->second.bytes;
  };
  const std::int64_t before = sent();
  run.gradients(1);
  std::vector<std::int64_t> all{sent() - before};
  grid.world.sum(all);
  const std::int64_t T = 34, D = run.config.model.width, E = run.config.model.layer.experts.experts;
  EXPECT_EQ(all[0], M * 3 * (2 * 4 * (T * D + E) + 8));
}

}  // namespace
}  // namespace qnext
