// SPDX-License-Identifier: Apache-2.0
#include "tests/experts_layer.hpp"
#include "tests/gradient/check.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace qnext {
namespace {

using Form = BalanceLossConfig::Form;
using Scope = BalanceLossConfig::Scope;

// Two layers side by side with inputs of their own; y does not count, so that all gradient comes
// from the balance losses: loss(x0, x1) = scale (c balance + z router_z).
class BalanceGradientOf : public testing::TestWithParam<BalanceLossConfig> {
 protected:
  static constexpr int S = 3;
  static constexpr double scale = 0.7;
  const reference::ExpertsShape n{21, 16, 6, 2, 4, 0, true};
  ParameterTable table;
  const BalanceLoss<double> loss{GetParam(), 2, n.E, n.K, table};
  test::ExpertsLayer<double> first{n, S}, second{n, S};
  Arena arena;
  BalanceLoss<double>::Saved saved;

  BalanceGradientOf() {
    table.lay_out();
    Arena plan;
    loss.reserve_saved(plan, {n.T, S, S});
    arena = Arena(plan.peak());
    saved = loss.reserve_saved(arena, {n.T, S, S});
    auto w0 = test::expert_weights(n, 1), w1 = test::expert_weights(n, 100);
    first.set(w0);
    second.set(w1);
    first.saved.statistics = saved.statistics[0];
    second.saved.statistics = saved.statistics[1];
  }

  double value(const std::vector<double>& x, bool training = false) {
    const auto middle = x.begin() + n.T * n.D;
    first.forward({x.begin(), middle});
    second.forward({middle, x.end()});
    const Tensor<double, 0> balance("balance"), router_z("router z");
    loss.share_out(Exec{}, saved);
    loss.forward(Exec{}, saved, training, balance, router_z);
    return scale * (GetParam().coefficient * test::to_host(balance)[0] +
                    GetParam().router_z_loss * test::to_host(router_z)[0]);
  }
};

TEST_P(BalanceGradientOf, IsTheDerivative) {
  const auto x = test::uniform(2 * n.T * n.D, -1.0, 1.0, 9);
  if (GetParam().scope == Scope::global) {  // of a step before with other counts
    value(test::uniform(2 * n.T * n.D, -1.0, 1.0, 8), true);
    loss.end_step(Exec{});
  }
  value(x);
  const auto selected = first.selected();
  const std::vector<double> none(n.T * n.D, 0.0);
  const auto gradient0 = loss.gradient(saved, 0, scale), gradient1 = loss.gradient(saved, 1, scale);
  auto dx = first.backward(none, &gradient0);
  const auto dx1 = second.backward(none, &gradient1);
  dx.insert(dx.end(), dx1.begin(), dx1.end());
  test::expect_second_order(
      "x",
      [&](const std::vector<double>& at) {
        const double sum = value(at);
        EXPECT_EQ(first.selected(), selected) << "another choice of experts";
        return sum;
      },
      x, dx, test::uniform(x.size(), -0.2, 0.2, 3));
}

INSTANTIATE_TEST_SUITE_P(
    Forms, BalanceGradientOf,
    testing::Values(BalanceLossConfig{Form::huggingface, Scope::microbatch, 0.9, 0.0},
                    BalanceLossConfig{Form::megatron, Scope::microbatch, 0.9, 0.0},
                    BalanceLossConfig{Form::megatron, Scope::sequence, 0.9, 0.0},
                    BalanceLossConfig{Form::megatron, Scope::global, 0.9, 0.0},
                    BalanceLossConfig{Form::maxtext, Scope::microbatch, 0.9, 0.0},
                    BalanceLossConfig{Form::none, Scope::microbatch, 0.0, 0.4},
                    BalanceLossConfig{Form::maxtext, Scope::microbatch, 0.9, 0.4}));

}  // namespace
}  // namespace qnext
