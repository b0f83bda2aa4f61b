// SPDX-License-Identifier: Apache-2.0
#include "layers/balance_loss.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

using Form = BalanceLossConfig::Form;
using Scope = BalanceLossConfig::Scope;

constexpr int L = 3, S = 2, E = 6, K = 2, T = 24;

/// The losses of L layers whose routers left these numbers.
struct Model {
  std::vector<std::vector<double>> count;        // (L) x (S, E)
  std::vector<std::vector<double>> probability;  // (L) x (S, E)  sums
  std::vector<std::vector<double>> square;       // (L) x (S)

  static Model random() {
    Model model;
    for (int l = 0; l < L; ++l) {
      auto count = test::uniform(S * E, 0.0, 9.0, 10 + l);
      for (double& value : count) {
        value = static_cast<int>(value);
      }
      model.count.push_back(count);
      model.probability.push_back(test::uniform(S * E, 0.0, 4.0, 20 + l));
      model.square.push_back(test::uniform(S, 0.0, 5.0, 30 + l));
    }
    return model;
  }

  static Model balanced() {
    const double tokens = T / S;
    Model model;
    model.count.assign(L, std::vector<double>(S * E, tokens * K / E));
    model.probability.assign(L, std::vector<double>(S * E, tokens / E));
    model.square.assign(L, std::vector<double>(S, tokens * 4.0));
    return model;
  }
};

struct Losses {
  double balance, router_z;
};

Losses evaluate(const BalanceLoss<double>& loss, const Model& model, bool training = false) {
  Arena plan;
  const MicrobatchShape shape{T, 5, S};
  loss.reserve_saved(plan, shape);
  Arena arena(plan.peak());
  const auto saved = loss.reserve_saved(arena, shape);
  for (int l = 0; l < L; ++l) {
    const auto& statistics = saved.statistics[l];
    Kokkos::deep_copy(statistics.count, test::to_device<int>(model.count[l], S, E));
    Kokkos::deep_copy(statistics.probability, test::to_device(model.probability[l], S, E));
    Kokkos::deep_copy(statistics.square, test::to_device(model.square[l], S));
  }
  const Tensor<double, 0> balance("balance"), router_z("router z");
  loss.share_out(Exec{}, saved);
  loss.forward(Exec{}, saved, training, balance, router_z);
  return {test::to_host(balance)[0], test::to_host(router_z)[0]};
}

template <class Real = double>
BalanceLoss<Real> laid_out(const BalanceLossConfig& config) {
  ParameterTable table;
  BalanceLoss<Real> loss(config, L, E, K, table);
  table.lay_out();
  return loss;
}

BalanceLoss<double> make(Form form, Scope scope = Scope::microbatch) {
  return laid_out({form, scope, 1e-3, 1e-3});
}

// At most L S E = 36 terms, some roundings each.
constexpr double relative = 100 * 0x1.0p-52;

TEST(BalanceLoss, HasItsValueWhenBalanced) {
  const auto model = Model::balanced();
  EXPECT_NEAR(evaluate(make(Form::huggingface), model).balance, K, K * relative);
  EXPECT_NEAR(evaluate(make(Form::maxtext), model).balance, K, K * relative);
  for (const Scope scope : {Scope::microbatch, Scope::sequence, Scope::global}) {
    EXPECT_NEAR(evaluate(make(Form::megatron, scope), model).balance, L, L * relative);
  }
  EXPECT_NEAR(evaluate(make(Form::none), model).router_z, L * 4.0, L * 4.0 * relative);
  EXPECT_EQ(evaluate(make(Form::none), model).balance, 0.0);
}

TEST(BalanceLoss, EqualsTheDefinitions) {
  const auto model = Model::random();
  double pooled = 0.0, per_sequence = 0.0, per_microbatch = 0.0, squares = 0.0;
  for (int e = 0; e < E; ++e) {
    double all_count = 0.0, all_probability = 0.0;
    for (int l = 0; l < L; ++l) {
      double count = 0.0, probability = 0.0;
      for (int s = 0; s < S; ++s) {
        const double n = model.count[l][s * E + e], p = model.probability[l][s * E + e];
        const double tokens = T / S;
        per_sequence += E * (n / tokens) * (p / tokens);
        count += n;
        probability += p;
      }
      per_microbatch += E * (count / T) * (probability / T);
      all_count += count;
      all_probability += probability;
    }
    pooled += E * (all_count / (L * T)) * (all_probability / (L * T));
  }
  for (int l = 0; l < L; ++l) {
    squares += (model.square[l][0] + model.square[l][1]) / T;
  }
  const auto expect = [&](const BalanceLoss<double>& loss, double value) {
    EXPECT_NEAR(evaluate(loss, model).balance, value, value * relative);
    EXPECT_NEAR(evaluate(loss, model).router_z, squares, squares * relative);
  };
  expect(make(Form::huggingface), pooled);
  expect(make(Form::maxtext), per_sequence / (L * S));
  expect(make(Form::megatron), per_microbatch / K);
  expect(make(Form::megatron, Scope::sequence), per_sequence / (S * K));
}

TEST(BalanceLoss, OfGlobalScopeTakesTheCountsOfTheStepBefore) {
  const auto loss = make(Form::megatron, Scope::global);
  const auto first = Model::random();
  auto second = first;
  std::reverse(second.probability[1].begin(), second.probability[1].end());
  const double before = evaluate(make(Form::megatron, Scope::microbatch), second).balance;
  // The first step has none before it; its counts do not sum to K T, as those of a router do.
  EXPECT_NEAR(evaluate(loss, second, true).balance, before, before * relative);
  evaluate(loss, first, true);
  evaluate(loss, first, false);  // evaluation does not count
  loss.end_step(Exec{});
  double expected = 0.0;
  for (int l = 0; l < L; ++l) {
    double total = 0.0;
    for (const double n : first.count[l]) {
      total += n;
    }
    for (int e = 0; e < E; ++e) {
      const double share = (first.count[l][e] + first.count[l][E + e]) / total;
      expected += E * share * (second.probability[l][e] + second.probability[l][E + e]) / T;
    }
  }
  EXPECT_NEAR(evaluate(loss, second, true).balance, expected, expected * relative);
  EXPECT_EQ(test::to_host(loss.step_counts())[0], first.count[0][0] + first.count[0][E]);
}

TEST(BalanceLoss, IsAbsentWithoutFormAndCoefficient) {
  const auto loss = laid_out<float>({});
  EXPECT_TRUE(loss.empty());
  const auto gradient = loss.gradient({}, 0, 1.0);
  EXPECT_EQ(gradient.constant.extent(0), 0u);
}

}  // namespace
}  // namespace qnext
