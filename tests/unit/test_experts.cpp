// SPDX-License-Identifier: Apache-2.0
#include "tests/experts_layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace qnext {
namespace {

using reference::ExpertsShape;

class Experts : public testing::TestWithParam<ExpertsShape> {};

/// The largest sum_d |x_d w_d| over rows of two matrices of width D.
double largest_product(const std::vector<double>& x, const std::vector<double>& w, int D) {
  double largest = 0.0;
  for (std::size_t i = 0; i < x.size(); i += D) {
    for (std::size_t j = 0; j < w.size(); j += D) {
      double sum = 0.0;
      for (int d = 0; d < D; ++d) {
        sum += std::abs(x[i + d] * w[j + d]);
      }
      largest = std::max(largest, sum);
    }
  }
  return largest;
}

// With A the largest sum |x w| of an inner projection, |gate| and |up| are below A with an error of
// D eps A; h = silu(gate) up is below A^2 with (2.2 D + 8) eps A^2; the row sum of F terms with
// |W_down| <= w is below F w A^2 and adds F eps. Logits of R = sum |x w_r| move each weight by
// 4 D eps R relative. The weights of a token sum to at most 1, the shared expert adds as much
// again. Storage in bf16 rounds x W, h, each row and y: 6 more roundings of its own epsilon.
template <class Storage>
double bound(const ExpertsShape& n, const reference::ExpertsWeights& w,
             const std::vector<double>& x) {
  const double A = std::max(
      largest_product(x, w.gate_up, n.D),
      std::max(largest_product(x, w.shared_gate, n.D), largest_product(x, w.shared_up, n.D)));
  const double R =
      std::max(largest_product(x, w.router, n.D), largest_product(x, w.shared_expert_gate, n.D));
  const int F = std::max(n.F, n.G);
  const double eps = test::epsilon_of<Accum<Storage>>();
  const double stored = sizeof(Storage) == 2 ? 6.0 * test::epsilon_of<Storage>() : 0.0;
  return 2.0 * F * 0.3 * A * A * ((2.2 * n.D + F + n.K + 12 + 4.0 * n.D * R) * eps + stored);
}

template <class Storage>
void expect_definition(const ExpertsShape& n) {
  auto w = test::expert_weights(n, 11);
  const auto x = test::rounded<Storage>(test::uniform(n.T * n.D, -1.0, 1.0, 12));
  test::ExpertsLayer<Storage> layer(n);
  layer.set(w);
  const auto routing = reference::route(n, w, x);
  ASSERT_GT(routing.smallest_gap, 1e-5) << "rounding must not change the choice";
  const auto expected = reference::experts(n, w, routing, x);
  const double tolerance = bound<Storage>(n, w, x);
  const auto y = layer.forward(x);
  for (std::size_t i = 0; i < y.size(); ++i) {
    ASSERT_NEAR(y[i], expected[i], tolerance) << "element " << i;
  }
  const auto decoded = layer.step(x);
  for (std::size_t i = 0; i < decoded.size(); ++i) {
    ASSERT_NEAR(decoded[i], expected[i], tolerance) << "element " << i;
  }
}

TEST_P(Experts, EqualTheDefinitionInDouble) {
  expect_definition<double>(GetParam());
}
TEST_P(Experts, EqualTheDefinitionInFloat) {
  expect_definition<float>(GetParam());
}
TEST_P(Experts, EqualTheDefinitionInBf16) {
  expect_definition<bf16>(GetParam());
}

// One token; not renormalised with six experts; no shared expert; more experts than choices, so
// that some have no token; every expert chosen; several blocks of tokens.
INSTANTIATE_TEST_SUITE_P(Shapes, Experts,
                         testing::Values(ExpertsShape{1, 24, 8, 2, 12, 16, true},
                                         ExpertsShape{37, 48, 6, 3, 12, 16, false},
                                         ExpertsShape{3, 33, 40, 2, 7, 0, true},
                                         ExpertsShape{5, 16, 3, 3, 20, 8, true},
                                         ExpertsShape{131, 40, 5, 2, 24, 9, true}));

TEST(Experts, ServeAllTokensOfOneExpert) {
  const ExpertsShape n{45, 20, 4, 2, 12, 0, true};
  auto w = test::expert_weights(n, 21);
  auto x = test::uniform(n.T * n.D, 0.1, 1.0, 4);
  for (int d = 0; d < n.D; ++d) {  // x is positive: experts 2 and 1 always win
    w.router[2 * n.D + d] = 2.0;
    w.router[1 * n.D + d] = 1.5;
  }
  test::ExpertsLayer<double> layer(n);
  layer.set(w);
  const auto y = layer.forward(x);
  EXPECT_EQ(test::to_host(layer.saved.rows.offset), (std::vector<double>{0, 0, 45, 90, 90}));
  const auto routing = reference::route(n, w, x);
  const auto expected = reference::experts(n, w, routing, x);
  const double tolerance = bound<double>(n, w, x);
  for (std::size_t i = 0; i < y.size(); ++i) {
    ASSERT_NEAR(y[i], expected[i], tolerance);
  }
}

TEST(Experts, SortStably) {
  const ExpertsShape n{130, 16, 5, 3, 4, 0, true};
  auto w = test::expert_weights(n, 31);
  test::ExpertsLayer<float> layer(n, 2);
  layer.set(w);
  layer.forward(test::uniform(n.T * n.D, -1.0, 1.0, 5));
  const auto selected = layer.selected();
  std::vector<int> order(selected.size());
  for (std::size_t c = 0; c < order.size(); ++c) {
    order[c] = static_cast<int>(c);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return selected[a] < selected[b]; });
  const auto place = test::to_host(layer.saved.rows.place);
  for (std::size_t row = 0; row < order.size(); ++row) {
    ASSERT_EQ(place[order[row]], row);
  }
}

TEST(Experts, CountWhatTheBalanceLossesNeed) {
  const ExpertsShape n{129, 16, 7, 2, 4, 0, true};
  const int S = 3;
  auto w = test::expert_weights(n, 41);
  test::ExpertsLayer<double> layer(n, S);
  layer.set(w);
  const auto x = test::uniform(n.T * n.D, -1.0, 1.0, 6);
  layer.forward(x);
  const auto routing = reference::route(n, w, x);
  std::vector<double> count(S * n.E), probability(S * n.E), square(S);
  for (int t = 0; t < n.T; ++t) {
    const int s = t / (n.T / S);
    for (int k = 0; k < n.K; ++k) {
      ++count[s * n.E + routing.selected[t * n.K + k]];
    }
    for (int e = 0; e < n.E; ++e) {
      probability[s * n.E + e] += routing.probabilities[t * n.E + e];
    }
    square[s] += routing.log_sum[t] * routing.log_sum[t];
  }
  EXPECT_EQ(test::to_host(layer.saved.statistics.count), count);
  const auto sums = test::to_host(layer.saved.statistics.probability);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    EXPECT_NEAR(sums[i], probability[i], 43 * 60 * 0x1.0p-52);  // 43 terms with 60 roundings each
  }
  const auto squares = test::to_host(layer.saved.statistics.square);
  for (int s = 0; s < S; ++s) {
    EXPECT_NEAR(squares[s], square[s], 100 * square[s] * 0x1.0p-52);
  }
}

TEST(Experts, RegisterTheReleasedNames) {
  test::ExpertsLayer<bf16> layer({4, 16, 8, 2, 4, 12, true});
  std::vector<std::string> names;
  for (const Parameter& row : layer.table.rows()) {
    names.push_back(row.name);
    EXPECT_EQ(row.decay, Decay::yes) << row.name;
  }
  EXPECT_EQ(names, (std::vector<std::string>{
                       "mlp.gate.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj",
                       "mlp.shared_expert.gate_proj.weight", "mlp.shared_expert.up_proj.weight",
                       "mlp.shared_expert.down_proj.weight", "mlp.shared_expert_gate.weight"}));
  EXPECT_EQ(layer.table.find("mlp.gate.weight")->type, DataType::float32);
  EXPECT_EQ(layer.table.find("mlp.experts.down_proj")->reduce_over,
            ReduceOver::data_beside_experts);
}

TEST(Experts, RefuseMoreChoicesThanExperts) {
  EXPECT_THROW(test::ExpertsLayer<float>({4, 16, 2, 3, 4, 0, true}), Error);
}

}  // namespace
}  // namespace qnext
