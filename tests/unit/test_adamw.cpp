// SPDX-License-Identifier: Apache-2.0
#include "layers/adamw.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace qnext {
namespace {

template <class Storage>
class Fixture {
 public:
  using Real = Accum<Storage>;
  static constexpr int n = 5000;  // more than one block of the norm

  explicit Fixture(const AdamWConfig& config) {
    table.add({.name = "matrix", .shard = Shard::whole({n}), .decay = Decay::yes}, matrix);
    table.add(
        {.name = "norm", .shard = Shard::whole({3}), .decay = Decay::no, .zero_centred_norm = true},
        norm);
    table.lay_out();
    w = test::rounded<Storage>(test::uniform(n, 0.5, 1.0, 1));
    Kokkos::deep_copy(table.template values<Storage>(table.rows()[0]),
                      test::to_device<Storage>(w, n));
    optimizer = std::make_unique<AdamW>(config, table);
    optimizer->copy_masters_from_parameters();
  }

  void set_gradient(const std::vector<double>& g, double of_norm = 0.0) {
    Kokkos::deep_copy(table.template gradients<Real>(table.rows()[0]), test::to_device<Real>(g, n));
    Kokkos::deep_copy(table.template gradients<Real>(table.rows()[1]), Real(of_norm));
  }

  std::vector<double> values(int row) {
    return row == 0 ? test::to_host(table.template values<Storage>(table.rows()[0]))
                    : test::to_host(table.template values<Real>(table.rows()[1]));
  }

  ParameterTable table;
  Weight<Storage, 1> matrix;
  Weight<Real, 1> norm;
  std::vector<double> w;
  std::unique_ptr<AdamW> optimizer;
};

// Three steps in double next to the published recurrence. Every operation rounds once and none of
// the about fifteen a step amplifies: the second moment is bounded away from zero.
TEST(AdamW, FollowsTheRecurrence) {
  const AdamWConfig config;
  Fixture<double> f(config);
  auto w = f.w;
  std::vector<double> m(f.n), v(f.n);
  for (int step = 1; step <= 3; ++step) {
    const auto g = test::uniform(f.n, 0.5, 1.5, 10 + step);
    f.set_gradient(g);
    const auto norms = f.optimizer->gradient_norms(Exec{});
    double squares = 0.0;
    for (const double value : g) {
      squares += value * value;
    }
    EXPECT_NEAR(norms.global, std::sqrt(squares), f.n * 0x1.0p-52 * std::sqrt(squares));
    EXPECT_EQ(norms.first_bad, "");
    f.optimizer->update(Exec{}, step, 1e-2, norms.global);
    const double scale = 1.0 / (std::sqrt(squares) + 1e-6);
    for (int i = 0; i < f.n; ++i) {
      m[i] = 0.9 * m[i] + 0.1 * g[i] * scale;
      v[i] = 0.95 * v[i] + 0.05 * g[i] * scale * g[i] * scale;
      w[i] -= 1e-2 * 0.1 * w[i];
      w[i] -= 1e-2 / (1.0 - std::pow(0.9, step)) * m[i] /
              (std::sqrt(v[i]) / std::sqrt(1.0 - std::pow(0.95, step)) + 1e-8);
    }
  }
  const auto actual = f.values(0);
  for (int i = 0; i < f.n; ++i) {
    ASSERT_NEAR(actual[i], w[i], 3 * 20 * 0x1.0p-52 + f.n * 0x1.0p-52 * 3e-2);
  }
}

TEST(AdamW, NormsDecayOnlyWhenAsked) {
  for (const bool decay_norms : {false, true}) {
    AdamWConfig config;
    config.decay_norms = decay_norms;
    Fixture<double> f(config);
    Kokkos::deep_copy(f.table.values<double>(f.table.rows()[1]), 1.0);
    f.set_gradient(std::vector<double>(f.n, 0.0));
    f.optimizer->update(Exec{}, 1, 0.5, 0.0);
    EXPECT_EQ(f.values(1)[0], decay_norms ? 1.0 - 0.5 * 0.1 : 1.0);
  }
}

// An update far below the spacing of bf16 moves the master and, once enough of them have come
// together, the parameter.
TEST(AdamW, MastersKeepWhatBf16CannotHold) {
  AdamWConfig config;
  config.weight_decay = 0.0;
  Fixture<bf16> f(config);
  const auto before = f.values(0);
  f.set_gradient(std::vector<double>(f.n, 1.0));
  f.optimizer->update(Exec{}, 1, 1e-6, 0.0);
  EXPECT_EQ(f.values(0), before);
  for (int step = 2; step <= 100; ++step) {
    f.optimizer->update(Exec{}, step, 1e-3, 0.0);
  }
  const auto after = f.values(0);
  for (int i = 0; i < f.n; ++i) {
    ASSERT_LT(after[i], before[i]);
  }
}

TEST(AdamW, NamesTheTensorThatIsNotFinite) {
  Fixture<float> f(AdamWConfig{});
  f.set_gradient(std::vector<double>(f.n, 1.0), std::numeric_limits<double>::quiet_NaN());
  const auto norms = f.optimizer->gradient_norms(Exec{});
  EXPECT_EQ(norms.first_bad, "norm");
  EXPECT_FALSE(std::isfinite(norms.global));
}

}  // namespace
}  // namespace qnext
