// SPDX-License-Identifier: Apache-2.0
#include "layers/adamw.hpp"
#include "parallel/weight_gather.hpp"
#include "tests/mpi/world.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

namespace qnext {
namespace {

using test::world;

template <class Storage>
struct Fixture {
  using Real = Accum<Storage>;
  static constexpr int n = 30001;

  ParameterTable table;
  Weight<Storage, 1> matrix;
  Weight<float, 1> norm;
  std::unique_ptr<AdamW> optimizer;
  std::unique_ptr<WeightGather> weights;

  /// With groups of at most `bucket` bytes.
  explicit Fixture(const ProcessGrid& grid, std::int64_t bucket = 1 << 20) : table(bucket) {
    table.add({.name = "matrix", .shard = Shard::whole({n}), .init = Init::normal(1.0)}, matrix);
    table.add({.name = "norm", .shard = Shard::whole({3}), .decay = Decay::no}, norm);
    table.lay_out();
    initialise(table, 1);
    optimizer = std::make_unique<AdamW>(AdamWConfig{}, table, grid);
    optimizer->copy_masters_from_parameters();
    weights = std::make_unique<WeightGather>(
        table, named_apart(optimizer->shards(), table, grid, "weights"));
  }

  AdamW::GradientNorms step(int number) {
    Kokkos::deep_copy(table.gradients<Real>(table.rows()[0]),
                      test::to_device<Real>(test::uniform(n, -1.0, 1.0, number), n));
    Kokkos::deep_copy(table.gradients<float>(table.rows()[1]), 0.1f * number);
    const auto norms = optimizer->gradient_norms(Exec{});
    for (std::size_t group = 0; group < table.groups().size(); ++group) {
      optimizer->update(Exec{}, number, 1e-2, norms.global, group);
      weights->start(group);
    }
    for (std::size_t row = 0; row <= table.rows().size(); ++row) {
      weights->wait_for_rows(row);
    }
    return norms;
  }
};

// Ranks that share the work have the bits of a rank that does all of it, whatever the buckets, and
// hold their part only.
template <class Storage>
void expect_same_bits() {
  const ProcessGrid grid(Degrees{.data = world().ranks()}, world());
  Fixture<Storage> alone{ProcessGrid{}}, shared{grid, 1};
  for (int number = 1; number <= 3; ++number) {
    const auto wanted = alone.step(number), found = shared.step(number);
    EXPECT_EQ(found.global, wanted.global);
    EXPECT_EQ(found.squares, wanted.squares);
  }
  for (std::size_t row = 0; row < 2; ++row) {
    if (row == 0) {
      EXPECT_EQ(test::to_host(shared.table.template values<Storage>(shared.table.rows()[0])),
                test::to_host(alone.table.template values<Storage>(alone.table.rows()[0])));
    } else {
      EXPECT_EQ(test::to_host(shared.table.template values<float>(shared.table.rows()[1])),
                test::to_host(alone.table.template values<float>(alone.table.rows()[1])));
    }
  }
  EXPECT_EQ(shared.table.groups().size(), 2u);
  std::vector<std::int64_t> bytes{0};
  for (const auto& buffers : shared.optimizer->buffers()) {
    bytes.front() += static_cast<std::int64_t>(buffers.second_moment.extent(0));
  }
  const std::int64_t own = bytes.front();
  world().sum(bytes);
  std::int64_t all = 0;
  for (const auto& buffers : alone.optimizer->buffers()) {
    all += static_cast<std::int64_t>(buffers.second_moment.extent(0));
  }
  EXPECT_EQ(bytes.front(), all) << "each element has one owner";
  EXPECT_LE(own, all / world().ranks() + 2 * Shards::block * std::int64_t{sizeof(double)});
}

TEST(AdamW, SharedByRanksHasTheSameBitsInFloat) {
  expect_same_bits<float>();
}
TEST(AdamW, SharedByRanksHasTheSameBitsInBf16) {
  expect_same_bits<bf16>();
}
TEST(AdamW, SharedByRanksHasTheSameBitsInDouble) {
  expect_same_bits<double>();
}

TEST(AdamW, EveryRankHearsOfABadGradient) {
  const ProcessGrid grid(Degrees{.data = world().ranks()}, world());
  Fixture<float> f{grid};
  const auto gradients = f.table.gradients<float>(f.table.rows()[0]);
  Kokkos::deep_copy(gradients, 1.0f);
  if (world().rank() == world().ranks() - 1) {  // who owns the last element of the matrix
    Kokkos::deep_copy(Kokkos::subview(gradients, f.n - 1), std::numeric_limits<float>::quiet_NaN());
  }
  Kokkos::deep_copy(f.table.gradients<float>(f.table.rows()[1]), 0.0f);
  EXPECT_EQ(f.optimizer->gradient_norms(Exec{}).first_bad, "matrix");
}

// Gradients that are small whole numbers, so that sums of squares are exact in any order. Each
// expert counts once, and so does what all ranks hold.
TEST(AdamW, ExpertsCountOnceInTheNorm) {
  const int R = world().ranks();
  const int groups = R % 2 == 0 && R > 2 ? 2 : 1;
  const ProcessGrid grid(Degrees{.expert = R / groups, .data = R}, world());
  const int rows = 5000;
  ParameterTable table;
  Weight<float, 2> experts;
  Weight<float, 1> dense;
  table.add({.name = "experts",
             .shard = grid.expert_part({R / groups, rows}),
             .reduce_over = ReduceOver::data_beside_experts},
            experts);
  table.add({.name = "dense", .shard = Shard::whole({rows})}, dense);
  table.lay_out();
  const AdamW optimizer(AdamWConfig{}, table, grid);
  Kokkos::deep_copy(table.gradients<float>(table.rows()[0]), 1.0f + grid.place.expert);
  Kokkos::deep_copy(table.gradients<float>(table.rows()[1]), 7.0f);
  double of_experts = 0.0;
  for (int e = 1; e <= R / groups; ++e) {
    of_experts += static_cast<double>(rows) * e * e;
  }
  const auto norms = optimizer.gradient_norms(Exec{});
  EXPECT_EQ(norms.squares, (std::vector<double>{of_experts, rows * 49.0}));
  EXPECT_EQ(norms.global, std::sqrt(of_experts + rows * 49.0));
}

}  // namespace
}  // namespace qnext
