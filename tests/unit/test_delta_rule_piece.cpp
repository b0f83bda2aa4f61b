// SPDX-License-Identifier: Apache-2.0
#include "core/context_share.hpp"
#include "layers/kernels/delta_rule_piece.hpp"
#include "tests/delta_rule_case.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace qnext {
namespace {

using reference::DeltaRuleShape;
using Numbers = std::vector<double>;

// One document of three pieces, of which the middle one is here: it arrives and leaves.
struct Piece {
  DeltaRuleShape n;
  Documents documents;

  explicit Piece(const DeltaRuleShape& shape)
      : n(shape), documents(ContextShare::make({3 * shape.T()}, 1, 3, 1).documents) {}
};

double largest(const Numbers& values) {
  double most = 0.0;
  for (const double value : values) {
    most = std::max(most, std::abs(value));
  }
  return most;
}

// Errors of a walk over T tokens are at most 2 min(T, 64) K epsilon of the largest number
// (tests/unit/test_delta_rule.cpp); here a walk and a product over K come together, and in bf16 the
// operands of both walks are rounded to 2^-9 with the statistics derived there.
template <class Storage>
double bound_of(const DeltaRuleShape& n) {
  const int tokens = std::min(n.T(), 64);
  const double rounded =
      std::is_same_v<Storage, bf16> ? 2.0 * 6.0 * std::sqrt(4.0 * tokens / 3.0) * 0x1.0p-9 : 0.0;
  return (4.0 * tokens + 1.0) * n.K * test::epsilon_of<Accum<Storage>>() + rounded;
}

void expect_near(const Numbers& actual, const Numbers& expected, double relative,
                 const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  const double bound = relative * largest(expected);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], bound) << what << ", element " << i;
  }
}

template <class Storage>
void expect_the_definition(const DeltaRuleShape& n, int chunk) {
  using Real = Accum<Storage>;
  auto from = test::delta_rule_operands(n, 21);
  for (Numbers* values : {&from.q, &from.k, &from.v}) {
    *values = test::rounded<Storage>(*values);
  }
  for (Numbers* values : {&from.log_decay, &from.beta, &from.initial}) {
    *values = test::rounded<Real>(*values);
  }
  const auto forward = reference::delta_rule(n, from);
  const auto dout = test::rounded<Storage>(test::uniform(n.T() * n.H * n.V, -1, 1, 31));
  const auto dfinal = test::rounded<Real>(test::uniform(n.H * n.K * n.V, -1, 1, 32));
  const auto adjoint = reference::delta_rule_adjoint(n, from, forward, dout, dfinal);

  const Piece piece(n);
  test::DeltaRuleCase<Storage> device(n, from, chunk);
  Arena plan;
  const auto reserve = [&](Arena& arena) {
    return reserve_delta_rule_work<Storage>(arena, {n.G, n.H, n.K, n.V, chunk},
                                            {.tokens = n.T(), .documents = 1}, true);
  };
  reserve(plan);
  Arena arena(plan.peak());
  const auto work = reserve(arena);
  test::poison(work.slots);
  const DeltaRulePiece<Real> result{test::nan_tensor<Real>(1, n.H, n.K, n.K),
                                    test::nan_tensor<Real>(1, n.H, n.K, n.V)};
  delta_rule_piece<Storage>(Exec{}, piece.documents, chunk, device.in, result, work);
  const auto initial = test::to_device<Real>(from.initial, 1, n.H, n.K, n.V);
  delta_rule_pass<Real>(Exec{}, result.transition, false, initial, result.final);
  expect_near(test::to_host(result.final), forward.final, bound_of<Storage>(n), "final memory");

  const auto dinitial = test::nan_tensor<Real>(1, n.H, n.K, n.V);
  delta_rule_piece_adjoint<Storage>(Exec{}, piece.documents, chunk, device.in,
                                    test::to_device<Storage>(dout, n.T(), n.H, n.V), dinitial,
                                    work);
  delta_rule_pass<Real>(Exec{}, result.transition, true,
                        test::to_device<Real>(dfinal, 1, n.H, n.K, n.V), dinitial);
  expect_near(test::to_host(dinitial), adjoint.initial, bound_of<Storage>(n), "dinitial");
}

class DeltaRulePieces : public testing::TestWithParam<DeltaRuleShape> {};

TEST_P(DeltaRulePieces, GiveTheMemoryAndItsGradientOfTheDefinition) {
  for (const int chunk : {16, 64}) {
    expect_the_definition<double>(GetParam(), chunk);
    expect_the_definition<float>(GetParam(), chunk);
    expect_the_definition<bf16>(GetParam(), chunk);
  }
}

// One token, an odd length, whole chunks, widths that differ and are no multiple of a tile, shared
// key heads.
INSTANTIATE_TEST_SUITE_P(Shapes, DeltaRulePieces,
                         testing::Values(DeltaRuleShape{{1}, 1, 1, 8, 8},
                                         DeltaRuleShape{{129}, 2, 4, 12, 20},
                                         DeltaRuleShape{{64}, 1, 3, 33, 5},
                                         DeltaRuleShape{{70}, 1, 2, 128, 128}));

// A document that ends here gives nothing, one that begins here has no transition; the walks of
// documents inside do not run.
TEST(DeltaRulePiecesOfDocumentsInside, AreZero) {
  const DeltaRuleShape n{{4, 3, 5}, 1, 2, 8, 4};  // the first arrives, the last leaves
  const auto from = test::delta_rule_operands(n, 5, false);
  const test::DeltaRuleCase<double> device(n, from, 16);
  const auto share = ContextShare::make({12 + 4, 3, 5 + 12}, 1, 3, 1);
  ASSERT_EQ(share.documents.count, 3);
  Arena plan;
  reserve_delta_rule_work<double>(plan, {1, 2, 8, 4, 16}, {.tokens = 12, .documents = 3}, true);
  Arena arena(plan.peak());
  const auto work = reserve_delta_rule_work<double>(arena, {1, 2, 8, 4, 16},
                                                    {.tokens = 12, .documents = 3}, true);
  const DeltaRulePiece<double> piece{test::nan_tensor(1, 2, 8, 8), test::nan_tensor(1, 2, 8, 4)};
  delta_rule_piece<double>(Exec{}, share.documents, 16, device.in, piece, work);
  for (const double m : test::to_host(piece.transition)) {
    EXPECT_EQ(m, 0.0);
  }
  auto without = from;
  without.initial.clear();
  const auto expected = reference::delta_rule(n, without).final;
  const Numbers last(expected.end() - 2 * 8 * 4, expected.end());
  expect_near(test::to_host(piece.final), last, bound_of<double>(n), "final memory");

  const auto whole = ContextShare::make({12, 12, 12}, 1, 3, 1);
  delta_rule_piece<double>(Exec{}, whole.documents, 16, device.in, piece, work);
  const auto dinitial = test::nan_tensor(1, 2, 8, 4);
  delta_rule_piece_adjoint<double>(Exec{}, whole.documents, 16, device.in, device.out, dinitial,
                                   work);
  for (const auto& values : {test::to_host(piece.final), test::to_host(dinitial)}) {
    EXPECT_EQ(largest(values), 0.0);
  }
}

}  // namespace
}  // namespace qnext
