// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "tests/delta_rule_case.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace qnext {
namespace {

using reference::DeltaRuleShape;
using test::DeltaRuleCase;
using test::nan_tensor;
using test::to_device;
using test::to_host;
using Numbers = std::vector<double>;

double largest(const Numbers& values) {
  double most = 0.0;
  for (const double value : values) {
    most = std::max(most, std::abs(value));
  }
  return most;
}

void expect_near(const Numbers& actual, const Numbers& expected, double relative,
                 const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  const double bound = relative * largest(expected);
  double worst = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(std::isfinite(actual[i])) << what << ", element " << i;
    worst = std::max(worst, std::abs(actual[i] - expected[i]));
  }
  EXPECT_LE(worst, bound) << what;
}

// Odd lengths, several documents, single tokens, widths that are no multiple of a tile, shared key
// heads, whole chunks and one token beyond, more chunks than a segment holds.
const std::vector<DeltaRuleShape> shapes = {
    {{1}, 1, 1, 8, 8},         {{63, 1, 40}, 1, 1, 16, 40}, {{70}, 2, 4, 128, 96},
    {{7, 7, 7}, 1, 3, 5, 33},  {{64, 128}, 1, 2, 32, 16},   {{65, 129, 2}, 2, 2, 12, 20},
    {{17, 31}, 1, 1, 100, 60}, {{2100, 30}, 1, 2, 3, 2},
};

class DeltaRule : public testing::TestWithParam<DeltaRuleShape> {};

// A token adds two sums over K to the memory and |k| = 1, so that the memory never grows: at most
// 2 K rounding errors for each token that it remembers, and all products are below the largest
// result times the number of terms.
double bound_of(const DeltaRuleShape& n, double epsilon) {
  const int longest = *std::max_element(n.lengths.begin(), n.lengths.end());
  return 2.0 * std::min(longest, 64) * n.K * epsilon;
}

// In bf16 a token goes through the rounded operands S, beta R, A and N, each off by at most 2^-9 of
// itself, independently and without bias: 4 m roundings over the m tokens that the memory holds, of
// standard deviation 2^-9 / sqrt(3) each. Six standard deviations of their sum, |k| being 1.
double rounded_bound_of(const DeltaRuleShape& n) {
  const int longest = *std::max_element(n.lengths.begin(), n.lengths.end());
  return 6.0 * std::sqrt(4.0 * std::min(longest, 64) / 3.0) * 0x1.0p-9;
}

TEST_P(DeltaRule, RecurrentEqualsTheDefinition) {
  const auto n = GetParam();
  const auto from = test::delta_rule_operands(n, 1);
  const auto expected = reference::delta_rule(n, from);
  const DeltaRuleCase<double> device(n, from);
  delta_rule_recurrent<double>(Exec{}, device.documents, device.in, device.initial, device.out);
  const double bound = bound_of(n, 0x1.0p-52);
  expect_near(to_host(device.out), expected.out, bound, "out");
  expect_near(to_host(device.initial), expected.final, bound, "final memory");
}

// Document n begins in row begin(n) of the memories behind the tokens, which its first token
// overwrites: no memory is kept twice.
TEST_P(DeltaRule, RecurrentKeepsTheMemoryBehindEveryToken) {
  const auto n = GetParam();
  const auto from = test::delta_rule_operands(n, 1);
  const auto expected = reference::delta_rule(n, from);
  const DeltaRuleCase<double> device(n, from);
  const auto memory = nan_tensor(n.T(), n.H, n.K, n.V);
  Documents documents = device.documents;
  documents.arrives = documents.leaves =
      Tensor<const int, 1>(documents.begin.data(), documents.count);
  const auto begin =
      Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), device.documents.begin);
  for (int i = 0; i < documents.count; ++i) {
    Kokkos::deep_copy(Kokkos::subview(memory, begin(i), Kokkos::ALL, Kokkos::ALL, Kokkos::ALL),
                      Kokkos::subview(device.initial, i, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL));
  }
  delta_rule_recurrent<double>(Exec{}, documents, device.in, memory, device.out, Keep::each);
  const double bound = bound_of(n, 0x1.0p-52);
  expect_near(to_host(device.out), expected.out, bound, "out");
  expect_near(to_host(memory), expected.memory, bound, "memory behind every token");
}

TEST_P(DeltaRule, ChunkedEqualsTheDefinition) {
  const auto n = GetParam();
  const auto from = test::delta_rule_operands(n, 2);
  const auto expected = reference::delta_rule(n, from);
  for (const int chunk : {16, 32, 64}) {
    DeltaRuleCase<double> device(n, from, chunk);
    device.forward();
    const double bound = bound_of(n, 0x1.0p-52);
    expect_near(to_host(device.out), expected.out, bound, "out");
    expect_near(to_host(device.final), expected.final, bound, "final memory");
  }
}

TEST_P(DeltaRule, FloatAndBf16AreTheDefinitionRounded) {
  const auto n = GetParam();
  auto from = test::delta_rule_operands(n, 3);
  for (Numbers* values : {&from.q, &from.k, &from.v}) {
    *values = test::rounded<bf16>(*values);
  }
  for (Numbers* values : {&from.log_decay, &from.beta, &from.initial}) {
    *values = test::rounded<float>(*values);
  }
  const auto expected = reference::delta_rule(n, from);
  const double bound = bound_of(n, 0x1.0p-23);
  DeltaRuleCase<float> single(n, from);
  single.forward();
  expect_near(to_host(single.out), expected.out, bound, "float out");
  expect_near(to_host(single.final), expected.final, bound, "float final memory");
  DeltaRuleCase<bf16> half(n, from);
  half.forward();
  const double rounded = bound + rounded_bound_of(n);
  expect_near(to_host(half.out), expected.out, rounded + 0x1.0p-8, "bf16 out");
  expect_near(to_host(half.final), expected.final, rounded, "bf16 final memory");
}

TEST_P(DeltaRule, BackwardEqualsTheAdjointOfTheDefinition) {
  const auto n = GetParam();
  const auto from = test::delta_rule_operands(n, 4);
  const auto dout = test::uniform(n.T() * n.H * n.V, -1, 1, 11);
  const auto dfinal = test::uniform(n.N() * n.H * n.K * n.V, -1, 1, 12);
  const auto expected =
      reference::delta_rule_adjoint(n, from, reference::delta_rule(n, from), dout, dfinal);
  for (const int chunk : {16, 32, 64}) {
    DeltaRuleCase<double> device(n, from, chunk);
    device.backward(dout, dfinal);
    const double bound = 4.0 * bound_of(n, 0x1.0p-52);  // four such sums behind each other
    expect_near(to_host(device.gradient.q), expected.q, bound, "dq");
    expect_near(to_host(device.gradient.k), expected.k, bound, "dk");
    expect_near(to_host(device.gradient.v), expected.v, bound, "dv");
    expect_near(to_host(device.gradient.log_decay), expected.log_decay, bound, "dlog_decay");
    expect_near(to_host(device.gradient.beta), expected.beta, bound, "dbeta");
    expect_near(to_host(device.dinitial), expected.initial, bound, "dinitial");
  }
}

TEST_P(DeltaRule, BackwardInBf16IsTheAdjointRounded) {
  const auto n = GetParam();
  auto from = test::delta_rule_operands(n, 7);
  for (Numbers* values : {&from.q, &from.k, &from.v}) {
    *values = test::rounded<bf16>(*values);
  }
  for (Numbers* values : {&from.log_decay, &from.beta, &from.initial}) {
    *values = test::rounded<float>(*values);
  }
  const auto dout = test::rounded<bf16>(test::uniform(n.T() * n.H * n.V, -1, 1, 14));
  const auto dfinal = test::rounded<float>(test::uniform(n.N() * n.H * n.K * n.V, -1, 1, 15));
  const auto expected =
      reference::delta_rule_adjoint(n, from, reference::delta_rule(n, from), dout, dfinal);
  DeltaRuleCase<bf16> device(n, from);
  device.backward(dout, dfinal);
  // The memory, then its gradient on the way back, then the products of both: three such sums, and
  // the rounding of what is stored.
  const double bound = 4.0 * bound_of(n, 0x1.0p-23) + 3.0 * rounded_bound_of(n) + 0x1.0p-8;
  expect_near(to_host(device.gradient.q), expected.q, bound, "dq");
  expect_near(to_host(device.gradient.k), expected.k, bound, "dk");
  expect_near(to_host(device.gradient.v), expected.v, bound, "dv");
  expect_near(to_host(device.gradient.log_decay), expected.log_decay, bound, "dlog_decay");
  expect_near(to_host(device.gradient.beta), expected.beta, bound, "dbeta");
  expect_near(to_host(device.dinitial), expected.initial, bound, "dinitial");
}

// Without states; the gradients replace the operands.
TEST_P(DeltaRule, BackwardInPlaceInFloat) {
  const auto n = GetParam();
  auto from = test::delta_rule_operands(n, 5);
  from.initial.clear();
  for (Numbers* values : {&from.q, &from.k, &from.v, &from.log_decay, &from.beta}) {
    *values = test::rounded<float>(*values);
  }
  const auto dout = test::rounded<float>(test::uniform(n.T() * n.H * n.V, -1, 1, 13));
  const auto expected =
      reference::delta_rule_adjoint(n, from, reference::delta_rule(n, from), dout, {});
  DeltaRuleCase<float> device(n, from);
  const auto q = to_device<float>(from.q, n.T(), n.G, n.K);
  const auto k = to_device<float>(from.k, n.T(), n.G, n.K);
  const auto v = to_device<float>(from.v, n.T(), n.H, n.V);
  device.in.q = device.gradient.q = q;
  device.in.k = device.gradient.k = k;
  device.in.v = device.gradient.v = v;
  device.dinitial = {};
  device.backward(dout, {});
  const double bound = 4.0 * bound_of(n, 0x1.0p-23);
  expect_near(to_host(q), expected.q, bound, "dq");
  expect_near(to_host(k), expected.k, bound, "dk");
  expect_near(to_host(v), expected.v, bound, "dv");
  expect_near(to_host(device.gradient.log_decay), expected.log_decay, bound, "dlog_decay");
  expect_near(to_host(device.gradient.beta), expected.beta, bound, "dbeta");
}

INSTANTIATE_TEST_SUITE_P(Shapes, DeltaRule, testing::ValuesIn(shapes));

TEST(DeltaRuleChunk, RefusesALengthThatDoesNotFitTheTiles) {
  const DeltaRuleShape n{{3}, 1, 1, 4, 4};
  DeltaRuleCase<double> device(n, test::delta_rule_operands(n, 6));
  device.chunk = 24;
  try {
    device.forward();
    FAIL() << "a chunk of 24 was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("chunk = 24, wanted 16, 32, 48 or 64"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace qnext
