// SPDX-License-Identifier: Apache-2.0
#include "tests/attention_layer.hpp"
#include "tests/gradient/check.hpp"

#include <gtest/gtest.h>

#include <string>

namespace qnext {
namespace {

// loss(x, weights) = sum(y dy).
class GatedAttentionGradient : public testing::TestWithParam<reference::AttentionShape> {};

TEST_P(GatedAttentionGradient, IsTheDerivative) {
  const auto n = GetParam();
  test::AttentionLayer<double> layer(n);
  const auto documents = test::documents(n.lengths);
  const auto x = test::uniform(n.tokens() * n.D, -1.0, 1.0, 1);
  const auto dy = test::uniform(n.tokens() * n.D, -1.0, 1.0, 2);
  const auto loss = [&](const std::vector<double>& at) {
    const auto y = layer.forward(documents, at);
    double sum = 0.0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      sum += y[i] * dy[i];
    }
    return sum;
  };
  const auto along = [](const std::vector<double>& at, double size, int seed) {
    return test::uniform(static_cast<std::int64_t>(at.size()), -size, size, seed);
  };
  layer.forward(documents, x);
  const auto dx = layer.backward(documents, dy);
  const std::vector<std::pair<std::string, std::vector<double>>> weights{
      {"q_proj", layer.weights.q},      {"k_proj", layer.weights.k},
      {"v_proj", layer.weights.v},      {"o_proj", layer.weights.o},
      {"q_norm", layer.weights.q_norm}, {"k_norm", layer.weights.k_norm}};
  std::vector<std::vector<double>> gradients;
  for (const auto& [name, value] : weights) {
    gradients.push_back(layer.gradient(name));
  }
  test::expect_second_order("x", loss, x, dx, along(x, 0.3, 3));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto& [name, value] = weights[i];
    const auto of_weight = [&, name = name](const std::vector<double>& at) {
      layer.set(name, at);
      return loss(x);
    };
    test::expect_second_order(name, of_weight, value, gradients[i],
                              along(value, 0.5, 4 + static_cast<int>(i)));
    layer.set(name, value);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, GatedAttentionGradient,
    testing::Values(
        reference::AttentionShape{.lengths = {1, 4}, .H = 2, .G = 1, .W = 8, .rotary = 4, .D = 10},
        reference::AttentionShape{
            .lengths = {37, 1, 29}, .H = 3, .G = 1, .W = 24, .rotary = 8, .D = 16},
        reference::AttentionShape{
            .lengths = {33, 40}, .H = 8, .G = 2, .W = 6, .rotary = 6, .gated = false, .D = 12}));

}  // namespace
}  // namespace qnext
