// SPDX-License-Identifier: Apache-2.0
#include "app/fine_tune_section.hpp"
#include "tests/gradient/check.hpp"
#include "tests/model_support.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

// The whole model in double, cross entropy, MTP and balance losses together: every parameter in
// turn along a direction of its own. All experts are chosen, because another choice would be a
// jump.
void expect_gradients(ModelConfig config) {
  config.layer.experts.experts = 3;
  config.layer.experts.experts_per_token = 3;
  test::ModelUnderTest<double> fixture(config);
  const test::TestBatch batch({23, 1, 9}, config.vocabulary, 5);
  for (const Parameter& row : fixture.table.rows()) {
    if (row.of_adapter) {  // a B of zero would hide the gradient of A
      Kokkos::deep_copy(
          fixture.table.values<double>(row),
          test::to_device(test::uniform(row.elements(), -0.4, 0.4, 7), row.elements()));
    }
  }
  fixture.loss(batch, true);
  std::vector<std::vector<double>> gradients;
  for (const Parameter& row : fixture.table.rows()) {
    gradients.push_back(row.frozen ? std::vector<double>() : fixture.gradient(row));
  }
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const Parameter& row = fixture.table.rows()[i];
    if (!row.alias_of.empty() || row.frozen) {
      continue;
    }
    const auto values = fixture.table.values<double>(row);
    const auto x = test::to_host(values);
    const auto set = [&](const std::vector<double>& at) {
      Kokkos::deep_copy(values, test::to_device(at, at.size()));
    };
    test::expect_second_order_at_some_length(
        row.name,
        [&](const std::vector<double>& at) {
          set(at);
          return fixture.loss(batch, false);
        },
        x, gradients[i], test::uniform(x.size(), -0.5, 0.5, 100 + i));
    set(x);
  }
}

TEST(ModelGradient, IsTheDerivativeForEveryParameter) {
  expect_gradients(test::small_model_config());
}

TEST(ModelGradient, WithATiedHead) {
  ModelConfig config = test::small_model_config();
  config.tied_head = true;
  expect_gradients(config);
}

TEST(ModelGradient, WithTheBalanceLossOfTransformersAndNoRenormalisation) {
  ModelConfig config = test::small_model_config();
  config.balance.form = BalanceLossConfig::Form::huggingface;
  config.layer.experts.renormalise = false;
  expect_gradients(config);
}

// Beside every projection that takes one, of a rank that divides nothing.
TEST(ModelGradient, OfAdaptersAlone) {
  ModelConfig config = test::small_model_config();
  config.recompute = Recompute::block;
  config.adapters = {.rank = 3, .alpha = 2.0, .targets = adapter_projections(config)};
  expect_gradients(config);
}

}  // namespace
}  // namespace qnext
