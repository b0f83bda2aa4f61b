// SPDX-License-Identifier: Apache-2.0
#include "parallel/tree_sum.hpp"
#include "tests/mpi/world.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
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

std::int64_t largest_part(const std::vector<std::int64_t>& borders) {
  std::int64_t largest = 0;
  for (std::size_t r = 1; r < borders.size(); ++r) {
    largest = std::max(largest, borders[r] - borders[r - 1]);
  }
  return largest;
}

// Three sums under way at once.
template <class Real>
void expect_tree(const std::vector<std::int64_t>& borders, std::int64_t bucket) {
  Shards shards;
  shards.over = world();
  shards.borders = borders;
  const int ranks = world().ranks();
  const int count = static_cast<int>(borders.back());
  std::vector<Tensor<Real, 1>> values;
  TreeSum tree(TreeSum::workspace_bytes(ranks, largest_part(borders) * sizeof(Real), bucket),
               bucket);
  for (int buffer = 0; buffer < 3; ++buffer) {
    values.push_back(test::to_device<Real>(term<Real>(world().rank() + buffer, count), count));
    tree.start<Real>(Exec{}, values.back(), shards);
    tree.progress();
  }
  tree.wait();
  for (int buffer = 0; buffer < 3; ++buffer) {
    const auto sum = test::to_host(values[buffer]);
    std::vector<std::vector<double>> terms;
    terms.reserve(ranks);
    for (int r = 0; r < ranks; ++r) {
      terms.push_back(term<Real>(r + buffer, count));
    }
    for (std::int64_t i = shards.begin(); i < shards.end(); ++i) {
      std::vector<Real> summands;
      summands.reserve(ranks);
      for (int r = 0; r < ranks; ++r) {
        summands.push_back(static_cast<Real>(terms[r][i]));
      }
      ASSERT_EQ(sum[i], tree_sum(summands)) << "buffer " << buffer << ", element " << i;
    }
  }
}

// Parts of unequal size, one of them empty, in one piece, in several, and in as many as there can
// be.
template <class Real>
void expect_trees() {
  std::vector<std::int64_t> borders{0};
  for (int r = 0; r < world().ranks(); ++r) {
    borders.push_back(borders.back() + (r == 1 ? 0 : 190000 + 1000 * r));
  }
  expect_tree<Real>(borders, std::int64_t{1} << 30);
  expect_tree<Real>(borders, 1000001);
  expect_tree<Real>(borders, 1);
}

TEST(TreeSum, HasTheBitsOfTheTreeInFloat) {
  expect_trees<float>();
}
TEST(TreeSum, HasTheBitsOfTheTreeInDouble) {
  expect_trees<double>();
}

// Pairs and all ranks share the workspace: parts of 3 k + 2 numbers of a pair fill a slot that has
// k numbers for each of three others, and nothing behind them.
TEST(TreeSum, KeepsSumsOfOtherRanksApart) {
  const Communicator& all = world();
  if (all.ranks() < 4) {
    GTEST_SKIP() << "pairs of " << all.ranks() << " ranks are all of them or none";
  }
  const std::int64_t count = 3 * 50 + 2;
  Shards pair, everyone;
  pair.over = all.split(all.rank() / 2);
  pair.borders = {0, count, 2 * count};
  everyone.over = Communicator(all);
  for (int r = 0; r <= all.ranks(); ++r) {
    everyone.borders.push_back(50 * r);
  }
  TreeSum tree(TreeSum::workspace_bytes(2, count * sizeof(double), 1 << 20), 1 << 20);
  std::vector<Tensor<double, 1>> values;
  const auto start = [&](const Shards& shards) {
    values.push_back(test::to_device<double>(
        std::vector<double>(shards.borders.back(), 1.0 + all.rank()), shards.borders.back()));
    tree.start<double>(Exec{}, values.back(), shards);
  };
  for (int turn = 0; turn < 4; ++turn) {
    start(turn % 2 == 0 ? pair : everyone);
  }
  all.barrier();  // messages are there before any is added
  tree.wait();
  const int first = all.rank() / 2 * 2;
  for (int turn = 0; turn < 4; ++turn) {
    const Shards& shards = turn % 2 == 0 ? pair : everyone;
    const double expected =
        turn % 2 == 0 ? 2.0 * first + 3.0 : all.ranks() * (all.ranks() + 1) / 2.0;
    const auto sum = test::to_host(values[turn]);
    for (std::int64_t i = shards.begin(); i < shards.end(); ++i) {
      ASSERT_EQ(sum[i], expected) << "turn " << turn << ", element " << i;
    }
  }
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
    const auto found = kinds.find("send");
    return found == kinds.end() ? 0 : found->second.bytes;
  };
  const std::int64_t before = sent();
  const auto values = test::to_device<float>(term<float>(0, static_cast<int>(borders.back())),
                                             static_cast<int>(borders.back()));
  TreeSum tree(TreeSum::workspace_bytes(static_cast<int>(ranks), part * 4, part), part);
  tree.start<float>(Exec{}, values, shards);
  tree.wait();
  EXPECT_EQ(sent() - before, (ranks - 1) * part * 4);
}

TEST(TreeSum, RefusesAWorkspaceThatIsTooSmall) {
  if (world().ranks() == 1) {
    return;
  }
  Shards shards;
  shards.over = world();
  for (int r = 0; r <= world().ranks(); ++r) {
    shards.borders.push_back(100 * r);
  }
  TreeSum tree(TreeSum::workspace_bytes(world().ranks(), 98 * 4, 1000), 1000);
  const Tensor<float, 1> values("values", shards.borders.back());
  try {
    tree.start<float>(Exec{}, values, shards);
    ADD_FAILURE() << "parts of 100 numbers were accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what())
                  .find("tree_sum: the workspace has room for 98 numbers of a "
                        "rank, wanted are 100"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace qnext
