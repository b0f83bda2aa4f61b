// SPDX-License-Identifier: Apache-2.0
#include "tests/delta_rule_case.hpp"
#include "tests/gradient/check.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace qnext {
namespace {

using reference::DeltaRuleOperands;
using reference::DeltaRuleShape;
using test::DeltaRuleCase;
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

class DeltaRuleGradient : public testing::TestWithParam<DeltaRuleShape> {};

// The loss weighs outputs and final memories; each operand is moved alone.
TEST_P(DeltaRuleGradient, IsTheDerivativeOfForward) {
  const auto n = GetParam();
  const auto from = test::delta_rule_operands(n, 31, false);
  const auto dout = uniform(n.T() * n.H * n.V, -1, 1, 32);
  const auto dfinal = uniform(n.N() * n.H * n.K * n.V, -1, 1, 33);
  DeltaRuleCase<double> device(n, from, 32);
  device.backward(dout, dfinal);

  const std::vector<std::tuple<std::string, Numbers DeltaRuleOperands::*, Numbers>> operands = {
      {"q", &DeltaRuleOperands::q, to_host(device.gradient.q)},
      {"k", &DeltaRuleOperands::k, to_host(device.gradient.k)},
      {"v", &DeltaRuleOperands::v, to_host(device.gradient.v)},
      {"log_decay", &DeltaRuleOperands::log_decay, to_host(device.gradient.log_decay)},
      {"beta", &DeltaRuleOperands::beta, to_host(device.gradient.beta)},
      {"initial", &DeltaRuleOperands::initial, to_host(device.dinitial)},
  };
  for (const auto& [name, member, gradient] : operands) {
    const auto loss = [&, member = member](const Numbers& moved) {
      auto operands_there = from;
      operands_there.*member = moved;
      DeltaRuleCase<double> there(n, operands_there, 32);
      there.forward();
      return dot(to_host(there.out), dout) + dot(to_host(there.final), dfinal);
    };
    test::expect_second_order(name, loss, from.*member, gradient,
                              uniform(gradient.size(), -1, 1, 34));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, DeltaRuleGradient,
                         testing::Values(DeltaRuleShape{{1}, 1, 1, 4, 4},
                                         DeltaRuleShape{{37, 5}, 1, 2, 6, 10},
                                         DeltaRuleShape{{70}, 2, 2, 20, 12}));

}  // namespace
}  // namespace qnext
