// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "parallel/ordered_sum.hpp"
#include "parallel/row_split.hpp"
#include "tests/mpi/world.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::world;

// Numbers of rank r whose sum depends on its order: large ones that cancel, and small ones.
template <class T>
std::vector<double> numbers(int r, int count) {
  auto values = test::uniform(count, -1.0, 1.0, 17 + r);
  for (int i = 0; i < count; ++i) {
    values[i] *= (i + r) % 3 == 0 ? 1e6 : 1.0;
  }
  return test::rounded<T>(values);
}

// The sum as the header defines it.
template <class T>
std::vector<double> sum_in_order(int count) {
  std::vector<Accum<T>> sum(count, 0);
  for (int r = 0; r < world().ranks(); ++r) {
    const auto values = numbers<T>(r, count);
    for (int i = 0; i < count; ++i) {
      sum[i] += static_cast<Accum<T>>(values[i]);
    }
  }
  return {sum.begin(), sum.end()};
}

struct Extents {
  int sequences, length, width;
};

class RowSplitOf : public testing::TestWithParam<Extents> {};

TEST_P(RowSplitOf, GivesEveryTokenToOneRank) {
  const auto [S, L, W] = GetParam();
  const RowSplit split(world(), S * L, S);
  std::vector<int> tokens;
  for (int i = 0; i < split.rows(); ++i) {
    tokens.push_back(split.token_rows().token(i));
  }
  auto all = world().all_gather(tokens);
  std::sort(all.begin(), all.end());
  ASSERT_EQ(all.size(), static_cast<std::size_t>(S * L));
  for (int t = 0; t < S * L; ++t) {
    EXPECT_EQ(all[t], t);
  }
}

TEST_P(RowSplitOf, GathersRows) {
  const auto [S, L, W] = GetParam();
  const RowSplit split(world(), S * L, S);
  const auto all = test::uniform(S * L * W, -1.0, 1.0, 3);
  std::vector<double> mine;
  for (int i = 0; i < split.rows(); ++i) {
    const auto row = all.begin() + split.token_rows().token(i) * W;
    mine.insert(mine.end(), row, row + W);
  }
  const auto whole = test::nan_tensor<double>(S * L, W);
  split.gather<double>(Exec{}, test::to_device<double>(mine, split.rows(), W), whole);
  EXPECT_EQ(test::to_host(whole), all);
}

// Bitwise the sum in the order of the ranks, which another order would not give.
template <class In, class Out>
void expect_sums(const Extents& n, Write write) {
  const auto [S, L, W] = n;
  const RowSplit split(world(), S * L, S);
  const auto partial = test::to_device<In>(numbers<In>(world().rank(), S * L * W), S * L, W);
  const auto received = test::nan_tensor<In>(split.received_rows() * W);
  const auto mine = test::nan_tensor<Out>(split.rows(), W);
  if (write == Write::add) {
    Kokkos::deep_copy(mine, Out(0.5f));
  }
  split.sum<In, Out>(Exec{}, partial, received, mine, write);
  const auto sum = sum_in_order<In>(S * L * W);
  const auto actual = test::to_host(mine);
  for (int i = 0; i < split.rows(); ++i) {
    for (int d = 0; d < W; ++d) {
      auto wanted = static_cast<Accum<In>>(sum[split.token_rows().token(i) * W + d]);
      wanted = write == Write::add ? Accum<In>(0.5) + wanted : wanted;
      ASSERT_EQ(actual[i * W + d], static_cast<double>(Out(wanted))) << "row " << i;
    }
  }
}

TEST_P(RowSplitOf, SumsInTheOrderOfTheRanks) {
  expect_sums<double, double>(GetParam(), Write::replace);
  expect_sums<float, float>(GetParam(), Write::add);
  expect_sums<bf16, float>(GetParam(), Write::replace);
  expect_sums<bf16, bf16>(GetParam(), Write::add);
}

// Several sequences, lengths that are no multiple of the ranks, one row for each rank.
INSTANTIATE_TEST_SUITE_P(Shapes, RowSplitOf,
                         testing::Values(Extents{1, 8, 5}, Extents{3, 13, 7}, Extents{2, 4, 1}));

// Bitwise on all ranks, in one piece and in pieces, with fewer numbers than ranks.
TEST(OrderedSum, IsTheSameOnAllRanks) {
  const int R = world().ranks();
  for (const int count : {1, 3, 100, 64 * 7}) {
    for (const std::int64_t room : {ordered_sum_room(R, count), std::int64_t{3} * (R - 1)}) {
      const auto values = test::to_device<float>(numbers<float>(world().rank(), count), count);
      ordered_sum<float>(Exec{}, world(), values, test::nan_tensor<float>(room));
      EXPECT_EQ(test::to_host(values), sum_in_order<float>(count)) << count << " numbers";
    }
  }
}

// All ranks refuse before any of them waits.
TEST(OrderedSum, WantsRoomForTheOtherRanks) {
  if (world().ranks() == 1) {
    GTEST_SKIP() << "a rank alone receives nothing";
  }
  const Tensor<double, 1> values("values", 3), no_room("no_room", world().ranks() - 2);
  try {
    ordered_sum<double>(Exec{}, world(), values, no_room);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(
        std::string(error.what()).find("ordered_sum: no room for the numbers of the other ranks"),
        std::string::npos);
  }
}

}  // namespace
}  // namespace qnext
