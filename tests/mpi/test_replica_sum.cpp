// SPDX-License-Identifier: Apache-2.0
#include "parallel/replica_sum.hpp"
#include "tests/mpi/world.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace qnext {
namespace {

using test::world;

ProcessGrid tensor_grid() {
  return ProcessGrid(Degrees{.tensor = world().ranks()}, world());
}

// Whole numbers, whose sums are exact.
double number(int rank, int i) {
  return 100.0 * rank * rank + i;
}

// One parameter of every kind: divided, held by all, held by pairs of neighbours, and experts,
// whose sum is not made here.
struct Table {
  static constexpr int size = 200;
  ParameterTable table;
  Weight<float, 1> divided, shared, paired;
  Weight<double, 1> experts;

  explicit Table(const ProcessGrid& grid) {
    const Shard whole = Shard::whole({size});
    table.add({.name = "divided", .shard = grid.tensor_part({size * world().ranks()}, 0)}, divided);
    table.add(grid.replicated({.name = "shared", .shard = whole}), shared);
    table.add(grid.replicated({.name = "paired", .shard = grid.tensor_part({size}, 0, 2)}, 2),
              paired);
    table.add({.name = "experts", .shard = whole, .reduce_over = ReduceOver::data_beside_experts},
              experts);
    table.lay_out();
    for (const Parameter& row : table.rows()) {
      std::vector<double> values;
      for (int i = 0; i < row.elements(); ++i) {
        values.push_back(number(world().rank(), i));
      }
      row.type == DataType::float64
          ? Kokkos::deep_copy(table.gradients<double>(row),
                              test::to_device<double>(values, row.elements()))
          : Kokkos::deep_copy(table.gradients<float>(row),
                              test::to_device<float>(values, row.elements()));
    }
  }

  // Element i of the gradient is the sum of the numbers of the ranks first ... last.
  template <class View>
  static void expect_sum(const View& gradient, int first, int last) {
    const auto values = test::to_host(gradient);
    for (std::size_t i = 0; i < values.size(); ++i) {
      double wanted = 0.0;
      for (int r = first; r <= last; ++r) {
        wanted += number(r, static_cast<int>(i));
      }
      ASSERT_EQ(values[i], wanted) << "element " << i;
    }
  }
};

TEST(ReplicaSum, AddsWhatRanksHoldAlike) {
  const ProcessGrid grid = tensor_grid();
  const Table t(grid);
  ReplicaSum(grid, t.table).sum(Exec{});
  const int r = world().rank(), last = world().ranks() - 1;
  Table::expect_sum(t.divided.grad, r, r);
  Table::expect_sum(t.shared.grad, 0, last);
  Table::expect_sum(t.paired.grad, r / 2 * 2, r / 2 * 2 + 1);
  Table::expect_sum(t.experts.grad, r, r);
}

// A data rank asks for its part of a group; the rest stays.
TEST(ReplicaSum, AddsPartsOfAGroup) {
  const ProcessGrid grid = tensor_grid();
  const Table t(grid);
  const Parameter& row = *t.table.find("shared");
  const Tensor<std::byte, 1> asked(
      reinterpret_cast<std::byte*>(t.table.gradients<float>(row).data() + 64),
      (150 - 64) * sizeof(float));
  ReplicaSum(grid, t.table).sum(Exec{}, row.group, asked);
  const auto part = [&](int begin, int end) {
    return Kokkos::subview(t.shared.grad, std::pair(begin, end));
  };
  for (const auto& [begin, end] : {std::pair{0, 64}, {64, 150}, {150, 200}}) {
    const auto values = test::to_host(part(begin, end));
    for (int i = begin; i < end; ++i) {
      double wanted = number(world().rank(), i);
      for (int r = 0; begin == 64 && r < world().ranks(); ++r) {
        wanted += r == world().rank() ? 0.0 : number(r, i);
      }
      ASSERT_EQ(values[i - begin], wanted) << "element " << i;
    }
  }
}

}  // namespace
}  // namespace qnext
