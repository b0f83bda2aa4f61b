// SPDX-License-Identifier: Apache-2.0
#include "layers/head_loss.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace qnext {
namespace {

struct Extents {
  int T, D, V;
};

// Softmax cross entropy from its definition, for one thread and in double.
struct Reference {
  double sum = 0.0;
  std::vector<double> dh, dw;

  Reference(const Extents& n, const std::vector<double>& h, const std::vector<double>& w,
            const std::vector<int>& labels, double scale)
      : dh(n.T * n.D), dw(n.V * n.D) {
    std::vector<double> logits(n.V);
    for (int t = 0; t < n.T; ++t) {
      if (labels[t] < 0) {
        continue;
      }
      double total = 0.0;
      for (int v = 0; v < n.V; ++v) {
        logits[v] = 0.0;
        for (int d = 0; d < n.D; ++d) {
          logits[v] += h[t * n.D + d] * w[v * n.D + d];
        }
        total += std::exp(logits[v]);
      }
      sum += std::log(total) - logits[labels[t]];
      for (int v = 0; v < n.V; ++v) {
        const double dl = scale * (std::exp(logits[v]) / total - (v == labels[t] ? 1.0 : 0.0));
        for (int d = 0; d < n.D; ++d) {
          dh[t * n.D + d] += dl * w[v * n.D + d];
          dw[v * n.D + d] += dl * h[t * n.D + d];
        }
      }
    }
  }
};

class HeadLossDefinition : public testing::TestWithParam<Extents> {};

// Logits are sums of D products below 1 in size; the error of a loss is at most that of two logits
// and of a sum of V positive terms, that of a gradient the same times |w| or |h|, summed over V or
// T.
template <class Storage>
void expect_definition(const Extents& n) {
  using Real = Accum<Storage>;
  ParameterTable table;
  HeadLoss<Storage> head(table, "head", n.V, n.D, 0.02, "");
  table.lay_out();
  const auto h = test::rounded<Storage>(test::uniform(n.T * n.D, -1.0, 1.0, 1));
  const auto w = test::rounded<Storage>(test::uniform(n.V * n.D, -1.0, 1.0, 2));
  Kokkos::deep_copy(table.values<Storage>(table.rows()[0]), test::to_device<Storage>(w, n.V * n.D));
  std::vector<int> labels(n.T);
  for (int t = 0; t < n.T; ++t) {
    labels[t] = t % 5 == 3 ? -1 : (t * 7 + 2) % n.V;
  }
  const Tensor<int, 1> device_labels("labels", n.T);
  const auto host_labels = Kokkos::create_mirror_view(device_labels);
  std::copy(labels.begin(), labels.end(), host_labels.data());
  Kokkos::deep_copy(device_labels, host_labels);

  const double scale = 1.0 / 16;
  const Reference expected(n, h, w, labels, scale);
  Arena plan;
  head.reserve_work(plan, {n.T, 1, 1});
  Arena arena(plan.peak());
  const auto work = head.reserve_work(arena, {n.T, 1, 1});
  const auto device_h = test::to_device<Storage>(h, n.T, n.D);
  const auto dh = test::nan_tensor<Storage>(n.T, n.D);
  const Tensor<double, 0> sum("sum"), sum_alone("sum");
  head.forward_backward(Exec{}, device_h, device_labels, scale, sum, dh, Write::replace, work);
  head.forward(Exec{}, device_h, device_labels, sum_alone, work);

  const double eps = std::numeric_limits<Real>::epsilon();
  const double logit_error = 2.0 * n.D * n.D * eps + 2.0 * eps;
  const double loss_bound = n.T * (2.0 * logit_error + (n.V / 16 + 20) * eps);
  EXPECT_NEAR(test::to_host(sum)[0], expected.sum, loss_bound);
  EXPECT_EQ(test::to_host(sum)[0], test::to_host(sum_alone)[0]);

  const double dlogit_error = scale * (2.0 * logit_error + (n.V / 16 + 20) * eps +
                                       (sizeof(Storage) == 2 ? test::epsilon_of<Storage>() : 0.0));
  const auto actual_dh = test::to_host(dh);
  const double dh_bound = n.V * dlogit_error + 2.0 * n.V * eps +
                          (sizeof(Storage) == 2 ? test::epsilon_of<Storage>() : 0.0);
  for (int i = 0; i < n.T * n.D; ++i) {
    ASSERT_NEAR(actual_dh[i], expected.dh[i], dh_bound) << "dh " << i;
  }
  const auto actual_dw = test::to_host(table.gradients<Real>(table.rows()[0]));
  for (int i = 0; i < n.V * n.D; ++i) {
    ASSERT_NEAR(actual_dw[i], expected.dw[i], n.T * dlogit_error + n.T * eps) << "dw " << i;
  }
}

TEST_P(HeadLossDefinition, InDouble) {
  expect_definition<double>(GetParam());
}
TEST_P(HeadLossDefinition, InFloat) {
  expect_definition<float>(GetParam());
}
TEST_P(HeadLossDefinition, InBf16) {
  expect_definition<bf16>(GetParam());
}

// One token; a last block of tokens that is not full (128 a block for this vocabulary).
INSTANTIATE_TEST_SUITE_P(Shapes, HeadLossDefinition,
                         testing::Values(Extents{1, 4, 3}, Extents{9, 7, 33},
                                         Extents{130, 3, 66000}));

TEST(HeadLoss, SurvivesLogitsThatOverflowExp) {
  ParameterTable table;
  HeadLoss<float> head(table, "head", 3, 1, 0.02, "");
  table.lay_out();
  Kokkos::deep_copy(table.values<float>(table.rows()[0]),
                    test::to_device<float>({300.0, -300.0, 0.0}, 3));
  Arena plan;
  head.reserve_work(plan, {1, 1, 1});
  Arena arena(plan.peak());
  const Tensor<int, 1> labels("labels", 1);
  Kokkos::deep_copy(labels, 1);
  const Tensor<double, 0> sum("sum");
  head.forward(Exec{}, test::to_device<float>({1.0}, 1, 1), labels, sum,
               head.reserve_work(arena, {1, 1, 1}));
  EXPECT_EQ(test::to_host(sum)[0], 600.0);
}

}  // namespace
}  // namespace qnext
