// SPDX-License-Identifier: Apache-2.0
#include "parallel/tree_sum.hpp"
#include "tests/mpi/world.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace qnext {
namespace {

using test::world;

// Numbers of very different sizes, so that another order of the sum has other bits.
template <class Real>
std::vector<double> term(int rank, int count) {
  auto values = test::rounded<Real>(test::uniform(count, -1.0, 1.0, 100 + rank));
  for (double& value : values) {
    value *= rank % 3 == 0 ? 1.0 : rank % 3 == 1 ? 0x1p-13 : 0x1p11;
  }
  return values;
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
void expect_tree(const std::vector<std::int64_t>& borders, std::int64_t largest_part_bytes) {
  Shards shards;
  shards.over = world();
  shards.borders = borders;
  const int ranks = world().ranks();
  const int count = static_cast<int>(borders.back());
  const auto values = test::to_device<Real>(term<Real>(world().rank(), count), count);
  TreeSum(TreeSum::workspace_bytes(ranks, largest_part_bytes))
      .sum_parts<Real>(Exec{}, values, shards);
  const auto sum = test::to_host(values);
  std::vector<std::vector<double>> terms;
  for (int r = 0; r < ranks; ++r) {
    terms.push_back(term<Real>(r, count));
  }
  for (std::int64_t i = shards.begin(); i < shards.end(); ++i) {
    std::vector<Real> summands;
    for (int r = 0; r < ranks; ++r) {
      summands.push_back(static_cast<Real>(terms[r][i]));
    }
    ASSERT_EQ(sum[i], tree_sum(summands)) << "element " << i;
  }
}

// Parts of unequal size, one of them empty, in one piece and in several.
template <class Real>
void expect_trees() {
  std::vector<std::int64_t> borders{0};
  std::int64_t largest = 0;
  for (int r = 0; r < world().ranks(); ++r) {
    const std::int64_t part = r == 1 ? 0 : 9000 + 1000 * r;
    borders.push_back(borders.back() + part);
    largest = std::max(largest, part);
  }
  expect_tree<Real>(borders, largest * static_cast<std::int64_t>(sizeof(Real)));
  expect_tree<Real>(borders, Shards::block * static_cast<std::int64_t>(sizeof(Real)));
}

TEST(TreeSum, HasTheBitsOfTheTreeInFloat) {
  expect_trees<float>();
}
TEST(TreeSum, HasTheBitsOfTheTreeInDouble) {
  expect_trees<double>();
}

TEST(TreeSum, SendsEachPartOnce) {
  const std::int64_t part = 5000, ranks = world().ranks();
  std::vector<std::int64_t> borders;
  for (int r = 0; r <= ranks; ++r) {
    borders.push_back(part * r);
  }
  Shards shards;
  shards.over = Communicator(world());
  shards.borders = borders;
  const auto sent = [&] {
    const auto& kinds = world().traffic().kinds;
    const auto found = kinds.find("exchange");
    return found == kinds.end() ? 0 : found->second.bytes;
  };
  const std::int64_t before = sent();
  const auto values = test::to_device<float>(term<float>(0, static_cast<int>(borders.back())),
                                             static_cast<int>(borders.back()));
  TreeSum(TreeSum::workspace_bytes(static_cast<int>(ranks), part * 4))
      .sum_parts<float>(Exec{}, values, shards);
  EXPECT_EQ(sent() - before, (ranks - 1) * part * 4);
}

}  // namespace
}  // namespace qnext
