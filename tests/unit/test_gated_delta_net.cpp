// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "tests/gated_delta_net_case.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace qnext {
namespace {

using reference::DeltaRuleShape;
using test::GatedDeltaNetCase;
using test::to_host;
using test::uniform;
using Numbers = std::vector<double>;

struct Case {
  DeltaRuleShape shape;
  int taps;
};

// One token, documents shorter than the taps, odd lengths, shared key heads, more tokens than a
// block of the convolution, backward included.
const std::vector<Case> cases = {
    {{{1}, 1, 1, 4, 8}, 4},   {{{2, 1, 3, 65}, 2, 4, 8, 12}, 4}, {{{64, 70}, 1, 3, 12, 20}, 3},
    {{{200}, 2, 2, 5, 7}, 2}, {{{129, 131}, 1, 2, 16, 16}, 4},   {{{33, 1}, 3, 3, 6, 4}, 6},
};

class GatedDeltaNetTest : public testing::TestWithParam<Case> {
 protected:
  DeltaRuleShape n = GetParam().shape;
  int channels() const { return 2 * n.G * n.K + n.H * n.V; }
  Numbers x = uniform(n.T() * 10, -1, 1, 21);
  Numbers conv_tail = uniform(n.N() * (GetParam().taps - 1) * channels(), -1, 1, 22);
  Numbers memory = uniform(n.N() * n.H * n.K * n.V, -1, 1, 23);
};

double worst(const Numbers& actual, const Numbers& expected) {
  double difference = 0.0, largest = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(actual.at(i) - expected[i]);
    difference = error <= difference ? difference : error;  // NaN stays
    largest = std::max(largest, std::abs(expected[i]));
  }
  return difference / largest;
}

// Five sums behind each other, of at most max(D, K, V H) terms and over at most 64 tokens that the
// memory holds, each with half an epsilon of error for each term.
double bound_of(const DeltaRuleShape& n, double epsilon) {
  return 2.5 * epsilon * 64 * std::max({10, n.K, n.V * n.H});
}

TEST_P(GatedDeltaNetTest, EqualsTheDefinition) {
  GatedDeltaNetCase<double> device(n, GetParam().taps);
  const auto expected = reference::gated_delta_net(n, 10, GetParam().taps, 1e-5, device.weights(),
                                                   x, conv_tail, memory);
  auto initial = device.state_of(conv_tail, memory);
  device.layer->forward(Exec{}, device.documents, device.input(x), &initial, device.y,
                        &device.final, device.saved, device.work);
  const double bound = bound_of(n, 0x1.0p-52);
  EXPECT_LE(worst(to_host(device.y), expected.y), bound);
  EXPECT_LE(worst(to_host(device.final.memory), expected.memory), bound);
  EXPECT_LE(worst(to_host(device.final.conv_tail), expected.conv_tail), bound);

  device.layer->forward(Exec{}, device.documents, device.input(x), nullptr, device.y, nullptr,
                        device.saved, device.work);
  const auto fresh =
      reference::gated_delta_net(n, 10, GetParam().taps, 1e-5, device.weights(), x, {}, {});
  EXPECT_LE(worst(to_host(device.y), fresh.y), bound);
}

// Weights and input are the same rounded numbers on both sides; in bf16 each of the eight tensors
// on the way is rounded once more, to half its spacing.
TEST_P(GatedDeltaNetTest, FloatAndBf16AreTheDefinitionRounded) {
  GatedDeltaNetCase<float> single(n, GetParam().taps);
  const auto x_single = test::rounded<float>(x);
  single.layer->forward(Exec{}, single.documents, single.input(x_single), nullptr, single.y,
                        nullptr, single.saved, single.work);
  const auto expected =
      reference::gated_delta_net(n, 10, GetParam().taps, 1e-5, single.weights(), x_single, {}, {});
  EXPECT_LE(worst(to_host(single.y), expected.y), bound_of(n, 0x1.0p-23));

  GatedDeltaNetCase<bf16> half(n, GetParam().taps);
  const auto x_half = test::rounded<bf16>(x);
  half.layer->forward(Exec{}, half.documents, half.input(x_half), nullptr, half.y, nullptr,
                      half.saved, half.work);
  const auto wanted =
      reference::gated_delta_net(n, 10, GetParam().taps, 1e-5, half.weights(), x_half, {}, {});
  EXPECT_LE(worst(to_host(half.y), wanted.y), 8 * 0x1.0p-8 * std::sqrt(10.0));
}

// Token by token from a state; the states behind the tokens are those of a run that stops there.
TEST_P(GatedDeltaNetTest, StepEqualsTheDefinitionAfterEveryToken) {
  GatedDeltaNetCase<double> device(n, GetParam().taps);
  const auto expected = reference::gated_delta_net(n, 10, GetParam().taps, 1e-5, device.weights(),
                                                   x, conv_tail, memory);
  auto state = device.state_of(conv_tail, memory);
  typename GatedDeltaNet<double>::State after{
      test::nan_tensor(n.T(), GetParam().taps - 1, channels()),
      test::nan_tensor(n.T(), n.H, n.K, n.V)};
  device.layer->step(Exec{}, device.documents, device.input(x), state, device.y, device.saved,
                     device.work, &after);
  const double bound = bound_of(n, 0x1.0p-52);
  EXPECT_LE(worst(to_host(device.y), expected.y), bound);
  EXPECT_LE(worst(to_host(state.memory), expected.memory), bound);
  EXPECT_LE(worst(to_host(state.conv_tail), expected.conv_tail), bound);

  // The last token of the last document has the final state behind it.
  const auto last = [](const Numbers& values, std::size_t count) {
    return Numbers(values.end() - count, values.end());
  };
  const std::size_t tail = (GetParam().taps - 1) * channels(), area = n.H * n.K * n.V;
  EXPECT_EQ(last(to_host(after.conv_tail), tail), last(to_host(state.conv_tail), tail));
  EXPECT_EQ(last(to_host(after.memory), area), last(to_host(state.memory), area));

  auto first = n;
  first.lengths = {1};
  const auto one = reference::gated_delta_net(
      first, 10, GetParam().taps, 1e-5, device.weights(), {x.begin(), x.begin() + 10},
      {conv_tail.begin(), conv_tail.begin() + tail}, {memory.begin(), memory.begin() + area});
  const auto front = [](const Numbers& values, std::size_t count) {
    return Numbers(values.begin(), values.begin() + count);
  };
  EXPECT_LE(worst(front(to_host(after.conv_tail), tail), one.conv_tail), bound);
  EXPECT_LE(worst(front(to_host(after.memory), area), one.memory), bound);
}

INSTANTIATE_TEST_SUITE_P(Shapes, GatedDeltaNetTest, testing::ValuesIn(cases));

TEST(GatedDeltaNetShape, NamesWhatDoesNotFit) {
  const auto message = [](GatedDeltaNetConfig config) -> std::string {
    ParameterTable table;
    try {
      const GatedDeltaNet<double> layer(config, ProcessGrid{}, table, "mixer");
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  GatedDeltaNetConfig config{.model_width = 8,
                             .key_heads = 2,
                             .value_heads = 5,
                             .key_width = 4,
                             .value_width = 4,
                             .conv_taps = 4};
  EXPECT_NE(message(config).find("value_heads = 5, wanted a multiple of key_heads = 2"),
            std::string::npos);
  config.value_heads = 4;
  config.conv_taps = 9;
  EXPECT_NE(message(config).find("taps = 9, wanted 2 to 6"), std::string::npos);
}

}  // namespace
}  // namespace qnext
