// SPDX-License-Identifier: Apache-2.0
#include "tests/gated_delta_net_case.hpp"
#include "tests/gradient/check.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace qnext {
namespace {

using reference::DeltaRuleShape;
using test::GatedDeltaNetCase;
using test::to_host;
using test::uniform;
using Numbers = std::vector<double>;

double dot(const Numbers& a, const Numbers& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

struct Case {
  DeltaRuleShape shape;
  int taps;
};

// How far a direction goes: what moves q and k goes a tenth as far, because the L2 norm of a short
// one bends strongly, and the rest would drown in rounding there.
Numbers direction(std::size_t count, bool moves_keys) {
  const double reach = moves_keys ? 0.1 : 1.0;
  return uniform(static_cast<std::int64_t>(count), -reach, reach, 47);
}

class GatedDeltaNetGradient : public testing::TestWithParam<Case> {
 protected:
  DeltaRuleShape n = GetParam().shape;
  int taps = GetParam().taps;
  int channels = 2 * n.G * n.K + n.H * n.V;
  GatedDeltaNetCase<double> device{n, taps, 16};

  struct Inputs {
    Numbers x, conv_tail, memory;
  };
  const Inputs inputs{uniform(n.T() * 10, -1, 1, 41),
                      uniform(n.N() * (taps - 1) * channels, -1, 1, 42),
                      uniform(n.N() * n.H * n.K * n.V, -1, 1, 43)};
  const Numbers dy = uniform(n.T() * 10, -1, 1, 44);
  const Inputs dfinal{
      {}, uniform(inputs.conv_tail.size(), -1, 1, 45), uniform(inputs.memory.size(), -1, 1, 46)};

  double loss(const Inputs& at) {
    auto initial = device.state_of(at.conv_tail, at.memory);
    device.layer->forward(Exec{}, device.documents, device.input(at.x), &initial, device.y,
                          &device.final, device.saved, device.work);
    return dot(to_host(device.y), dy) + dot(to_host(device.final.conv_tail), dfinal.conv_tail) +
           dot(to_host(device.final.memory), dfinal.memory);
  }

  void backward() {
    loss(inputs);
    const auto given = device.state_of(dfinal.conv_tail, dfinal.memory);
    device.layer->backward(Exec{}, device.documents, device.input(dy), &given, device.saved,
                           device.dx, &device.dinitial, device.work);
  }
};

TEST_P(GatedDeltaNetGradient, OfInputAndStates) {
  backward();
  const Inputs gradient{to_host(device.dx), to_host(device.dinitial.conv_tail),
                        to_host(device.dinitial.memory)};
  for (const auto member : {&Inputs::x, &Inputs::conv_tail, &Inputs::memory}) {
    const auto moved_loss = [&](const Numbers& moved) {
      auto there = inputs;
      there.*member = moved;
      return loss(there);
    };
    test::expect_second_order_at_some_length(
        member == &Inputs::x ? "x" : "initial state", moved_loss, inputs.*member, gradient.*member,
        direction((gradient.*member).size(), member == &Inputs::x));
  }
}

TEST_P(GatedDeltaNetGradient, OfEveryWeight) {
  backward();
  for (const std::string name : {"in_proj_qkvz.weight", "in_proj_ba.weight", "conv1d.weight",
                                 "A_log", "dt_bias", "norm.weight", "out_proj.weight"}) {
    const auto value = device.weight(name);
    const auto moved_loss = [&](const Numbers& moved) {
      device.set_weight(name, moved);
      return loss(inputs);
    };
    test::expect_second_order_at_some_length(
        name, moved_loss, value, device.gradient(name),
        direction(value.size(), name == "in_proj_qkvz.weight" || name == "conv1d.weight"));
    device.set_weight(name, value);
  }
}

// A second call adds the same gradient once more, and one without states changes none of the
// others' promises.
TEST_P(GatedDeltaNetGradient, AddsToTheWeightsAndReplacesTheRest) {
  backward();
  const auto once = device.gradient("conv1d.weight"), dx = to_host(device.dx);
  backward();
  const auto twice = device.gradient("conv1d.weight");
  for (std::size_t i = 0; i < once.size(); ++i) {
    EXPECT_DOUBLE_EQ(twice[i], 2.0 * once[i]);
  }
  EXPECT_EQ(to_host(device.dx), dx);
}

// Documents shorter than the taps, one token, shared key heads, more than one chunk, and a
// document that crosses a block of the convolution.
INSTANTIATE_TEST_SUITE_P(Shapes, GatedDeltaNetGradient,
                         testing::Values(Case{{{1}, 1, 1, 4, 4}, 4},
                                         Case{{{2, 19, 1}, 1, 2, 6, 5}, 4},
                                         Case{{{34}, 2, 4, 5, 8}, 3},
                                         Case{{{150}, 1, 1, 4, 4}, 2}));

}  // namespace
}  // namespace qnext
