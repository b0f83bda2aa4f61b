// SPDX-License-Identifier: Apache-2.0
#include "tests/model_support.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace qnext {
namespace {

using test::ModelUnderTest;
using test::TestBatch;
using test::world;

ModelConfig config_of(Recompute recompute) {
  ModelConfig config = test::small_model_config();
  config.layer.experts.experts = 8;
  config.layer.experts.receive_factor = 1.0;  // so that some layers want further rounds
  config.recompute = recompute;
  return config;
}

bool has_experts_in_rounds(const ModelUnderTest<float>& model) {
  for (const auto& layer : model.saved.layers) {
    if (layer.mlp.experts.over_ranks.exchange.rounds() > 1) {
      return true;
    }
  }
  return false;
}

// Packed documents, as many tokens more as the rank says. The judge is one rank that holds all
// experts and takes the microbatch of this rank: hidden states, loss and the gradients of all that
// every rank holds, through every layer down to the embedding, are its bits.
template <class Storage>
void expect_ranks_to_be_one(int degree, Recompute recompute) {
  const ProcessGrid grid(Degrees{.expert = degree, .data = world().ranks()}, world());
  const ModelConfig config = config_of(recompute);
  const TestBatch batch({23, 1, 9 + world().rank()}, config.vocabulary, 5 + world().rank());
  ModelUnderTest<Storage> model(config, 1, grid), alone(config, 1);
  EXPECT_EQ(model.loss(batch, true), alone.loss(batch, true));
  EXPECT_EQ(test::to_host(model.saved.normed), test::to_host(alone.saved.normed));
  EXPECT_EQ(test::to_host(model.saved.mtp.normed), test::to_host(alone.saved.mtp.normed));
  for (std::size_t i = 0; i < model.table.rows().size(); ++i) {
    const Parameter& row = model.table.rows()[i];
    const Parameter& judge = alone.table.rows()[i];
    if (row.reduce_over == ReduceOver::data_beside_experts) {
      EXPECT_EQ(row.elements() * degree, judge.elements()) << row.name;
    } else {
      EXPECT_EQ(model.gradient(row), alone.gradient(judge)) << row.name;
    }
  }
  EXPECT_EQ(model.table.global_elements(), alone.table.global_elements());
}

template <class Storage>
class ExpertModel : public testing::Test {};
using Types = testing::Types<double, float, bf16>;
TYPED_TEST_SUITE(ExpertModel, Types);

TYPED_TEST(ExpertModel, RanksAreOneRank) {
  for (int degree = 2; degree <= world().ranks(); degree *= 2) {
    for (const Recompute recompute : {Recompute::none, Recompute::block}) {
      SCOPED_TRACE(testing::Message()
                   << "degree " << degree << ", recompute " << static_cast<int>(recompute));
      expect_ranks_to_be_one<TypeParam>(degree, recompute);
    }
  }
}

TEST(ExpertModelRounds, AreMoreThanOneInTheTests) {
  const ProcessGrid grid(Degrees{.expert = world().ranks(), .data = world().ranks()}, world());
  const ModelConfig config = config_of(Recompute::none);
  const TestBatch batch({23, 1, 9 + world().rank()}, config.vocabulary, 5 + world().rank());
  ModelUnderTest<float> model(config, 1, grid);
  model.loss(batch, false);
  EXPECT_TRUE(has_experts_in_rounds(model));
}

// The documents of one rank, of a batch that holds those of all.
TestBatch part_of(const TestBatch& whole, const std::vector<int>& lengths, int first) {
  TestBatch part = whole;
  int tokens = 0;
  for (const int length : lengths) {
    tokens += length;
  }
  part.tokens = {whole.tokens.begin() + first, whole.tokens.begin() + first + tokens};
  part.labels = {whole.labels.begin() + first, whole.labels.begin() + first + tokens};
  part.batch = {TestBatch::to_device_ids(part.tokens), TestBatch::to_device_ids(part.labels),
                make_documents(lengths)};
  return part;
}

// In double the rows of products do not depend on their number beyond 64. Then one rank with the
// documents of all in one microbatch computes the same rows, and adds the terms of an expert in the
// order in which the expert's rank has them: rank behind rank. Balance losses are left out, whose
// scope is the microbatch.
TEST(ExpertModelGradients, OfExpertsAreThoseOfOneRankWithAllTokens) {
  const int N = world().ranks();
  const ProcessGrid grid(Degrees{.expert = N, .data = N}, world());
  ModelConfig config = config_of(Recompute::none);
  config.layer.experts.receive_factor = 1e3;
  config.balance = {};
  const std::vector<int> lengths{47, 1, 27};
  std::vector<int> all;
  for (int r = 0; r < N; ++r) {
    all.insert(all.end(), lengths.begin(), lengths.end());
  }
  const TestBatch whole(all, config.vocabulary, 5);
  const TestBatch part = part_of(whole, lengths, 75 * world().rank());
  ModelUnderTest<double> model(config, 1, grid), alone(config, 1);
  model.loss(part, true);
  alone.loss(whole, true);
  int compared = 0;
  for (const Parameter& row : model.table.rows()) {
    if (row.reduce_over == ReduceOver::data_beside_experts) {
      const auto gathered = grid.expert.all_gather(model.gradient(row));
      EXPECT_EQ(gathered, alone.gradient(*alone.table.find(row.name))) << row.name;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 6) << "two layers and the module for multi-token prediction, two each";
}

}  // namespace
}  // namespace qnext
