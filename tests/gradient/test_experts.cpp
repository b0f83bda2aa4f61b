// SPDX-License-Identifier: Apache-2.0
#include "tests/experts_layer.hpp"
#include "tests/gradient/check.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

using reference::ExpertsShape;

double inner(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

struct Case {
  ExpertsShape n;
  Capacity capacity;
};

class ExpertsGradient : public testing::TestWithParam<Case> {};

// loss(x, weights) = sum(y dy). The choice of experts is a step function; a change of it within the
// differences would show as an order of 0 and is excluded by the assertion.
TEST_P(ExpertsGradient, IsTheDerivative) {
  const auto& [n, capacity] = GetParam();
  auto w = test::expert_weights(n, 5);
  test::ExpertsLayer<double> layer(n, 1, capacity);
  layer.set(w);
  const auto x = test::uniform(n.T * n.D, -1.0, 1.0, 1);
  const auto dy = test::uniform(n.T * n.D, -1.0, 1.0, 2);
  layer.forward(x);
  const auto dx = layer.backward(dy);
  std::map<std::string, std::vector<double>> gradient;
  for (const auto& entry : test::by_name(w)) {
    gradient[entry.first] = layer.gradient(entry.first);
  }
  const auto place = test::to_host(layer.saved.rows.place);
  const auto value = [&](const std::vector<double>& at) {
    const double sum = inner(layer.forward(at), dy);
    EXPECT_EQ(test::to_host(layer.saved.rows.place), place) << "another choice of experts";
    return sum;
  };
  test::expect_second_order("x", value, x, dx, test::uniform(x.size(), -0.2, 0.2, 3));
  std::uint64_t seed = 30;
  for (const auto& [name, values] : test::by_name(w)) {
    const auto start = *values;
    const auto at = [&, target = values](const std::vector<double>& moved) {
      *target = moved;
      layer.set(w);
      return value(x);
    };
    test::expect_second_order(name, at, start, gradient[name],
                              test::uniform(start.size(), -0.5, 0.5, ++seed));
    *values = start;
    layer.set(w);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ExpertsGradient,
    testing::Values(Case{{7, 20, 5, 2, 8, 12, true}, {}}, Case{{9, 24, 6, 3, 12, 16, false}, {}},
                    Case{{1, 16, 4, 2, 8, 0, true}, {}},
                    Case{{14, 20, 5, 2, 8, 0, true}, {Capacity::Rule::position, 1.0}},
                    Case{{14, 20, 5, 2, 8, 12, false}, {Capacity::Rule::position, 0.8}},
                    Case{{14, 20, 5, 2, 8, 12, true}, {Capacity::Rule::probability, 0.8}}));

// Gradients are added to, activations replaced.
TEST(ExpertsGradient, OfWeightsIsAdded) {
  const ExpertsShape n{7, 20, 5, 2, 8, 12, true};
  auto w = test::expert_weights(n, 5);
  test::ExpertsLayer<double> layer(n);
  layer.set(w);
  layer.forward(test::uniform(n.T * n.D, -1.0, 1.0, 1));
  const auto dy = test::uniform(n.T * n.D, -1.0, 1.0, 2);
  layer.backward(dy);
  std::map<std::string, std::vector<double>> once;
  for (const auto& entry : test::by_name(w)) {
    once[entry.first] = layer.gradient(entry.first);
  }
  const auto dx = test::nan_tensor(n.T, n.D);
  layer.layer.backward(Exec{}, layer.documents(), test::to_device(dy, n.T, n.D), layer.saved,
                       nullptr, dx, layer.work);
  for (const auto& [name, values] : once) {
    const auto twice = layer.gradient(name);
    for (std::size_t i = 0; i < twice.size(); ++i) {
      // The second sum may round at each of its T K terms.
      ASSERT_NEAR(twice[i], 2.0 * values[i], 50 * (1.0 + std::abs(values[i])) * 0x1.0p-52) << name;
    }
  }
}

// Float and bf16 run the same kernels: their gradients are those in double but for rounding. With
// G the largest gradient of a tensor: float sums at most T K + D terms twice in a row; bf16 rounds
// about eight times between dy and a gradient.
template <class Storage>
void expect_close_to_double() {
  const ExpertsShape n{45, 24, 6, 2, 12, 16, true};
  auto w = test::expert_weights(n, 71);
  test::ExpertsLayer<Storage> low(n);
  low.set(w);
  test::ExpertsLayer<double> high(n);
  high.set(w);
  const auto x = test::rounded<Storage>(test::uniform(n.T * n.D, -1.0, 1.0, 1));
  const auto dy = test::rounded<Storage>(test::uniform(n.T * n.D, -1.0, 1.0, 2));
  low.forward(x);
  high.forward(x);
  ASSERT_EQ(low.selected(), high.selected());
  const double bound = 2.0 * (n.T * n.K + n.D) * test::epsilon_of<float>() +
                       (sizeof(Storage) == 2 ? 8.0 * test::epsilon_of<bf16>() : 0.0);
  const auto expect = [&](const std::string& name, const std::vector<double>& actual,
                          const std::vector<double>& expected) {
    double largest = 0.0;
    for (const double value : expected) {
      largest = std::max(largest, std::abs(value));
    }
    for (std::size_t i = 0; i < actual.size(); ++i) {
      ASSERT_NEAR(actual[i], expected[i], bound * largest) << name << " element " << i;
    }
  };
  const auto low_dx = low.backward(dy), high_dx = high.backward(dy);
  expect("x", low_dx, high_dx);
  for (const auto& entry : test::by_name(w)) {
    expect(entry.first, low.gradient(entry.first), high.gradient(entry.first));
  }
}

TEST(ExpertsGradient, InFloatIsThatInDouble) {
  expect_close_to_double<float>();
}
TEST(ExpertsGradient, InBf16IsThatInDouble) {
  expect_close_to_double<bf16>();
}

}  // namespace
}  // namespace qnext
