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

// Token by token from a state.
TEST_P(GatedDeltaNetTest, StepEqualsTheDefinition) {
  GatedDeltaNetCase<double> device(n, GetParam().taps);
  const auto expected = reference::gated_delta_net(n, 10, GetParam().taps, 1e-5, device.weights(),
                                                   x, conv_tail, memory);
  auto state = device.state_of(conv_tail, memory);
  device.layer->step(Exec{}, device.documents, device.input(x), state, device.y, device.saved,
                     device.work);
  const double bound = bound_of(n, 0x1.0p-52);
  EXPECT_LE(worst(to_host(device.y), expected.y), bound);
  EXPECT_LE(worst(to_host(state.memory), expected.memory), bound);
  EXPECT_LE(worst(to_host(state.conv_tail), expected.conv_tail), bound);
}

// The states behind the tokens of a document are those of runs that stop there, to the last bit. It
// begins in the row where the state behind its second token will lie.
TEST_P(GatedDeltaNetTest, StepKeepsTheStateBehindEveryToken) {
  auto one = n;
  one.lengths = {std::min(9, *std::max_element(n.lengths.begin(), n.lengths.end()))};
  const int T = one.lengths[0], first = T > 1 ? 1 : 0;
  const std::size_t tail = (GetParam().taps - 1) * channels(), area = n.H * n.K * n.V;
  const Numbers tokens(x.begin(), x.begin() + T * 10);
  const Numbers tail_before(conv_tail.begin(), conv_tail.begin() + tail);
  const Numbers memory_before(memory.begin(), memory.begin() + area);
  GatedDeltaNetCase<double> device(one, GetParam().taps);
  typename GatedDeltaNet<double>::State kept{test::nan_tensor(T, GetParam().taps - 1, channels()),
                                             test::nan_tensor(T, n.H, n.K, n.V)};
  const auto begin = device.state_of(tail_before, memory_before);
  const auto put = [&](const auto& from, const auto& to) {
    Kokkos::deep_copy(Kokkos::subview(to, std::pair(first, first + 1), Kokkos::ALL, Kokkos::ALL),
                      from);
  };
  put(begin.conv_tail, kept.conv_tail);
  put(Tensor<double, 3>(begin.memory.data(), 1, n.H, n.K * n.V),
      Tensor<double, 3>(kept.memory.data(), T, n.H, n.K * n.V));
  device.documents.arrives = test::to_device<int>({1.0 * first}, 1);
  device.documents.leaves = test::to_device<int>({0.0}, 1);
  device.layer->step(Exec{}, device.documents, device.input(tokens), kept, device.y, device.saved,
                     device.work, Keep::each);
  const Numbers tails = to_host(kept.conv_tail), memories = to_host(kept.memory);
  for (int t = 0; t < T; ++t) {
    one.lengths = {t + 1};
    GatedDeltaNetCase<double> until(one, GetParam().taps);
    auto state = until.state_of(tail_before, memory_before);
    until.layer->step(Exec{}, until.documents,
                      until.input({tokens.begin(), tokens.begin() + (t + 1) * 10}), state, until.y,
                      until.saved, until.work);
    EXPECT_EQ(to_host(state.conv_tail),
              Numbers(tails.begin() + t * tail, tails.begin() + (t + 1) * tail));
    EXPECT_EQ(to_host(state.memory),
              Numbers(memories.begin() + t * area, memories.begin() + (t + 1) * area));
  }
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
