// SPDX-License-Identifier: Apache-2.0
#include "app/expert_load.hpp"
#include "tests/model_support.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace qnext {
namespace {

struct Measured {
  ExpertLoad load;
  double least, most;
  double dropped;  // by counting the choices without a row
};

// Two microbatches of a model with experts in two layers and in the module for multi-token
// prediction.
Measured measure(const ModelConfig& config) {
  const ExpertLoadCounter counter(config);
  counter.clear(Exec{});
  const int E = config.layer.experts.experts;
  std::vector<double> chosen(3 * E);
  double kept = 0.0, all = 0.0;
  test::ModelUnderTest<double> fixture(config);
  for (const std::uint64_t seed : {5, 6}) {
    const test::TestBatch batch({23, 1, 9}, config.vocabulary, seed);
    fixture.loss(batch, false);
    counter.add<double>(Exec{}, fixture.saved, 33);
    const auto& layers = fixture.saved.layers;
    const auto* const mtp = &fixture.saved.mtp.layer.mlp.experts;
    int layer = 0;
    for (const auto* experts : {&layers[0].mlp.experts, &layers[2].mlp.experts, mtp}) {
      for (const double e : test::to_host(experts->routing.selected)) {
        chosen[layer * E + static_cast<int>(e)] += 1.0;
        all += 1.0;
      }
      for (const double place : test::to_host(experts->rows.place)) {
        kept += place >= 0.0 ? 1.0 : 0.0;
      }
      ++layer;
    }
  }
  return {counter.read(ProcessGrid{}), *std::min_element(chosen.begin(), chosen.end()),
          *std::max_element(chosen.begin(), chosen.end()), 1.0 - kept / all};
}

// Every token of 66 makes two choices among five experts, in each of three layers, also where the
// balance loss of transformers leaves multi-token prediction out.
TEST(ExpertLoad, CountsEveryLayerWithEveryBalanceLoss) {
  using Form = BalanceLossConfig::Form;
  for (const Form form : {Form::none, Form::huggingface, Form::megatron, Form::maxtext}) {
    ModelConfig config = test::small_model_config();
    config.balance.form = form;
    const Measured measured = measure(config);
    EXPECT_EQ(measured.load.mean, 66.0 * 2 / 5);
    EXPECT_EQ(measured.load.least, measured.least);
    EXPECT_EQ(measured.load.most, measured.most);
    EXPECT_EQ(measured.load.dropped, 0.0);
  }
}

TEST(ExpertLoad, CountsWhatCapacitiesDrop) {
  for (const auto rule : {Capacity::Rule::position, Capacity::Rule::probability}) {
    ModelConfig config = test::small_model_config();
    config.balance.form = BalanceLossConfig::Form::huggingface;
    config.layer.experts.capacity = {rule, 1.0};
    const Measured measured = measure(config);
    EXPECT_GT(measured.dropped, 0.0);
    EXPECT_EQ(measured.load.dropped, measured.dropped);
  }
}

}  // namespace
}  // namespace qnext
