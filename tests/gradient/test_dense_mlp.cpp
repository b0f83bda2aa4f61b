// SPDX-License-Identifier: Apache-2.0
#include "layers/dense_mlp.hpp"
#include "tests/gradient/check.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <map>

namespace qnext {
namespace {

// loss(x, weights, factor) = sum(y dy).
TEST(DenseMlpGradient, IsTheDerivative) {
  constexpr int T = 9, D = 20, F = 13;
  ParameterTable table;
  const DenseMlp<double> mlp({.model_width = D, .width = F}, ProcessGrid{}, table, "mlp");
  table.lay_out();
  Arena plan;
  mlp.reserve_saved(plan, {T, 1, 1});
  mlp.reserve_work(plan, {T, 1, 1});
  Arena arena(plan.peak());
  auto saved = mlp.reserve_saved(arena, {T, 1, 1});
  const auto work = mlp.reserve_work(arena, {T, 1, 1});

  std::map<std::string, std::vector<double>> at{{"x", test::uniform(T * D, -1.0, 1.0, 1)},
                                                {"factor", test::uniform(T, 0.2, 0.9, 2)}};
  for (const Parameter& row : table.rows()) {
    at[row.name] = test::uniform(row.elements(), -0.4, 0.4, at.size());
  }
  const auto dy = test::uniform(T * D, -1.0, 1.0, 3);
  Tensor<double, 2> x;
  Tensor<double, 1> factor;
  const auto loss = [&](const std::map<std::string, std::vector<double>>& values) {
    for (const Parameter& row : table.rows()) {
      Kokkos::deep_copy(table.values<double>(row),
                        test::to_device(values.at(row.name), row.elements()));
    }
    x = test::to_device(values.at("x"), T, D);
    factor = test::to_device(values.at("factor"), T);
    const auto y = test::nan_tensor(T, D);
    mlp.forward(Exec{}, x, y, saved, work, factor);
    const auto host = test::to_host(y);
    double sum = 0.0;
    for (std::size_t i = 0; i < host.size(); ++i) {
      sum += host[i] * dy[i];
    }
    return sum;
  };
  loss(at);
  const auto dx = test::nan_tensor(T, D);
  const auto dfactor = test::nan_tensor(T);
  mlp.backward(Exec{}, test::to_device(dy, T, D), saved, dx, work, factor, dfactor);
  std::map<std::string, std::vector<double>> gradient{{"x", test::to_host(dx)},
                                                      {"factor", test::to_host(dfactor)}};
  for (const Parameter& row : table.rows()) {
    gradient[row.name] = test::to_host(table.gradients<double>(row));
  }
  std::uint64_t seed = 50;
  for (const auto& [name, values] : at) {
    test::expect_second_order(
        name,
        [&, key = name](const std::vector<double>& moved) {
          auto there = at;
          there[key] = moved;
          return loss(there);
        },
        values, gradient[name], test::uniform(values.size(), -1.0, 1.0, ++seed));
  }
}

}  // namespace
}  // namespace qnext
