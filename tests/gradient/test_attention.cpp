// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/attention.hpp"
#include "tests/gradient/check.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <string>

namespace qnext {
namespace {

struct Case {
  reference::AttentionShape n;
  AttentionTiles tiles;
};

// loss = sum(dout attention(q, k, v) sigmoid(gate)): its gradients are what backward returns.
class AttentionGradientTest : public testing::TestWithParam<Case> {
 protected:
  const reference::AttentionShape n = GetParam().n;
  const AttentionTiles tiles = GetParam().tiles;
  const int T = n.tokens();
  const std::vector<double> q = test::uniform(T * n.H * n.W, -1.5, 1.5, 1);
  const std::vector<double> k = test::uniform(T * n.G * n.W, -1.5, 1.5, 2);
  const std::vector<double> v = test::uniform(T * n.G * n.W, -1.0, 1.0, 3);
  const std::vector<double> projected = test::uniform(T * n.H * 2 * n.W, -2.0, 2.0, 4);
  const std::vector<double> dout = test::uniform(T * n.H * n.W, -1.0, 1.0, 5);

  AttentionGradientTest() {
    const MicrobatchShape microbatch{T, static_cast<int>(n.lengths.size()), 1};
    Arena plan;
    reserve_attention_work<double>(plan, {n.H, n.G, n.W}, tiles, microbatch);
    arena = Arena(plan.peak());
    work = reserve_attention_work<double>(arena, {n.H, n.G, n.W}, tiles, microbatch);
  }

  void forward(const std::vector<double>& at_q, const std::vector<double>& at_k,
               const std::vector<double>& at_v, const std::vector<double>& at_projected) {
    in = {test::to_device(at_q, T, n.H, n.W), test::to_device(at_k, T, n.G, n.W),
          test::to_device(at_v, T, n.G, n.W)};
    query = test::to_device(at_projected, T, n.H, 2 * n.W);
    test::poison(work.slots);
    test::poison(out);
    test::poison(lse);
    attention_forward<double>(Exec{}, test::documents(n.lengths), tiles, in, query, out, lse, work);
  }

  double loss(const std::vector<double>& at_q, const std::vector<double>& at_k,
              const std::vector<double>& at_v, const std::vector<double>& at_projected) {
    forward(at_q, at_k, at_v, at_projected);
    const auto y = test::to_host(out);
    double sum = 0.0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      sum += dout[i] * y[i];
    }
    return sum;
  }

  Arena arena;
  AttentionWork<double> work;
  AttentionInput<double> in;
  Tensor<double, 3> query;
  Tensor<double, 3> out = test::nan_tensor(T, n.H, n.W);
  Tensor<double, 2> lse = test::nan_tensor(T, n.H);
};

TEST_P(AttentionGradientTest, IsTheDerivative) {
  forward(q, k, v, projected);
  const auto dattended = test::to_device(dout, T, n.H, n.W);
  const auto dprojected = test::nan_tensor(T, n.H, 2 * n.W);
  const auto delta = test::nan_tensor(T, n.H);
  const auto dk = test::nan_tensor(T, n.G, n.W), dv = test::nan_tensor(T, n.G, n.W);
  test::poison(work.slots);
  attention_gate_backward<double>(Exec{}, query, out, dattended, dprojected, delta);
  attention_backward<double>(Exec{}, test::documents(n.lengths), tiles, in, dattended, lse, delta,
                             {dprojected, dk, dv}, work);
  const auto halves = test::to_host(dprojected);
  std::vector<double> dq, dgate(halves.size(), 0.0);
  for (int row = 0; row < T * n.H; ++row) {
    const double* const head = &halves[row * 2 * n.W];
    dq.insert(dq.end(), head, head + n.W);
    std::copy(head + n.W, head + 2 * n.W, &dgate[row * 2 * n.W + n.W]);
  }
  const auto along = [](const std::vector<double>& x, int seed) {
    return test::uniform(static_cast<std::int64_t>(x.size()), -1.0, 1.0, seed);
  };
  test::expect_second_order(
      "q", [&](const auto& at) { return loss(at, k, v, projected); }, q, dq, along(q, 6));
  test::expect_second_order(
      "k", [&](const auto& at) { return loss(q, at, v, projected); }, k, test::to_host(dk),
      along(k, 7));
  test::expect_second_order(
      "v", [&](const auto& at) { return loss(q, k, at, projected); }, v, test::to_host(dv),
      along(v, 8));
  test::expect_second_order(
      "gate", [&](const auto& at) { return loss(q, k, v, at); }, projected, dgate,
      along(projected, 9));
}

// One token, several documents, grouped heads, tiles smaller and larger than the documents.
INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionGradientTest,
    testing::Values(Case{{.lengths = {1, 3}, .H = 2, .G = 1, .W = 8}, {128, 64}},
                    Case{{.lengths = {37, 1, 29}, .H = 3, .G = 1, .W = 24}, {128, 64}},
                    Case{{.lengths = {37, 1, 29}, .H = 3, .G = 1, .W = 24}, {12, 9}},
                    Case{{.lengths = {40, 33}, .H = 8, .G = 2, .W = 16}, {5, 16}},
                    Case{{.lengths = {150}, .H = 2, .G = 2, .W = 10}, {64, 32}}));

}  // namespace
}  // namespace qnext
