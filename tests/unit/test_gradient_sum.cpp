// SPDX-License-Identifier: Apache-2.0
#include "app/gradient_sum.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace qnext {
namespace {

constexpr int N = 5;

struct Fixture {
  ParameterTable table;
  Weight<float, 1> a;
  Weight<double, 1> b;

  Fixture() {
    table.add(Parameter{.name = "a", .shard = Shard::whole({N})}, a);
    table.add(Parameter{.name = "b", .shard = Shard::whole({N})}, b);
    table.lay_out();
  }
};

// Numbers of very different sizes, so that another order of the sum has other bits.
std::vector<double> gradient(int m) {
  auto values = test::rounded<float>(test::uniform(N, -1.0, 1.0, 100 + m));
  for (double& value : values) {
    value *= m % 3 == 0 ? 1.0 : m % 3 == 1 ? 0x1p-13 : 0x1p11;
  }
  return values;
}

// What a backward pass does: adds.
template <class Real>
void add_gradient(const Tensor<Real, 1>& grad, int m) {
  const auto values = test::to_device<Real>(gradient(m), N);
  Kokkos::parallel_for(
      "test", Kokkos::RangePolicy<Exec>(0, N),
      KOKKOS_LAMBDA(const int i) { grad(i) += values(i); });
}

// The definition: the first half, the longer one, plus the second.
template <class Real>
Real tree_sum(const std::vector<Real>& x) {
  if (x.size() == 1) {
    return x.front();
  }
  const auto middle = x.begin() + static_cast<std::ptrdiff_t>((x.size() + 1) / 2);
  return tree_sum(std::vector<Real>(x.begin(), middle)) +
         tree_sum(std::vector<Real>(middle, x.end()));
}

template <class Real>
std::vector<double> expected_sum(GradientOrder order, int microbatches) {
  std::vector<double> sums(N);
  for (int i = 0; i < N; ++i) {
    std::vector<Real> terms;
    for (int m = 0; m < microbatches; ++m) {
      terms.push_back(static_cast<Real>(gradient(m)[i]));
    }
    Real running = 0;
    for (const Real term : terms) {
      running += term;
    }
    sums[i] = order == GradientOrder::tree ? tree_sum(terms) : running;
  }
  return sums;
}

class GradientSumOf : public testing::TestWithParam<int> {};

TEST_P(GradientSumOf, HasTheBitsOfItsOrderInEveryStep) {
  for (const auto order : {GradientOrder::tree, GradientOrder::running}) {
    Fixture f;
    GradientSum sum(f.table, order, GetParam());
    for (int step = 0; step < 2; ++step) {
      for (int m = 0; m < GetParam(); ++m) {
        sum.before_microbatch(Exec{}, m);
        add_gradient<float>(f.a.grad, m);
        add_gradient<double>(f.b.grad, m);
      }
      ASSERT_EQ(sum.groups().size(), 2u);
      for (const std::size_t group : sum.groups()) {
        sum.finish(Exec{}, group);
      }
      EXPECT_EQ(test::to_host(f.a.grad), expected_sum<float>(order, GetParam()));
      EXPECT_EQ(test::to_host(f.b.grad), expected_sum<double>(order, GetParam()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Microbatches, GradientSumOf, testing::Values(1, 2, 3, 4, 5, 6, 7, 8, 13));

TEST(GradientSum, StackIsAsDeepAsTheTree) {
  EXPECT_EQ(GradientSum::levels(GradientOrder::tree, 1), 0);
  EXPECT_EQ(GradientSum::levels(GradientOrder::tree, 2), 1);
  EXPECT_EQ(GradientSum::levels(GradientOrder::tree, 4), 2);
  EXPECT_EQ(GradientSum::levels(GradientOrder::tree, 5), 2);
  EXPECT_EQ(GradientSum::levels(GradientOrder::running, 5), 0);
}

}  // namespace
}  // namespace qnext
