// SPDX-License-Identifier: Apache-2.0
#include "tests/gradient/check.hpp"
#include "tests/model_support.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace qnext {
namespace {

// The whole model in double, cross entropy, MTP and balance losses together: every parameter in
// turn along a direction of its own. All experts are chosen, because another choice would be a
// jump.
//
// Parameters differ in how much they bend the loss. The direction is halved until the truncation at
// the smaller step is below 5e-6 of the slope, which leaves it far above the cancellation of a loss
// of order one, about 1e-13; the order is measured there. A wrong gradient never gets there and
// fails.
void expect_order(const Parameter& row,
                  const std::function<double(const std::vector<double>&)>& loss,
                  const std::vector<double>& x, const std::vector<double>& gradient,
                  std::uint64_t seed) {
  for (double length = 4.0;; length *= 0.5) {
    const auto u = test::uniform(x.size(), -length, length, seed);
    auto ahead = x, behind = x;
    double slope = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      ahead[i] += 1e-3 * u[i];
      behind[i] -= 1e-3 * u[i];
      slope += gradient[i] * u[i];
    }
    const double error = std::abs((loss(ahead) - loss(behind)) / 2e-3 - slope);
    if (error < 5e-6 * std::abs(slope) || length < 0.01) {
      test::expect_second_order(row.name, loss, x, gradient, u);
      return;
    }
  }
}

void expect_gradients(ModelConfig config) {
  config.layer.experts.experts = 3;
  config.layer.experts.experts_per_token = 3;
  test::ModelUnderTest<double> fixture(config);
  const test::TestBatch batch({23, 1, 9}, config.vocabulary, 5);
  fixture.loss(batch, true);
  std::vector<std::vector<double>> gradients;
  for (const Parameter& row : fixture.table.rows()) {
    gradients.push_back(fixture.gradient(row));
  }
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const Parameter& row = fixture.table.rows()[i];
    if (!row.alias_of.empty()) {
      continue;
    }
    const auto values = fixture.table.values<double>(row);
    const auto x = test::to_host(values);
    const auto set = [&](const std::vector<double>& at) {
      Kokkos::deep_copy(values, test::to_device(at, at.size()));
    };
    expect_order(
        row,
        [&](const std::vector<double>& at) {
          set(at);
          return fixture.loss(batch, false);
        },
        x, gradients[i], 100 + i);
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

}  // namespace
}  // namespace qnext
