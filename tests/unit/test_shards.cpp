// SPDX-License-Identifier: Apache-2.0
#include "core/pairwise_tree.hpp"
#include "parallel/shards.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace qnext {
namespace {

struct Fixture {
  ParameterTable table;
  Weight<float, 1> large, small;
  Weight<double, 1> wide;
  Weight<float, 1> alias;

  Fixture() {
    table.add({.name = "large", .shard = Shard::whole({10000})}, large);
    table.add({.name = "wide", .shard = Shard::whole({5})}, wide);
    table.add({.name = "small", .shard = Shard::whole({70})}, small);
    table.add({.name = "alias", .shard = Shard::whole({70}), .alias_of = "small"}, alias);
    table.lay_out();
  }
};

TEST(Shards, OneRankOwnsEverything) {
  const Fixture f;
  const auto shards = make_shards(f.table, ProcessGrid{});
  ASSERT_EQ(shards.size(), 2u);
  EXPECT_EQ(shards[0].begin(), 0);
  EXPECT_EQ(shards[0].end(), f.table.groups()[0].elements);
  EXPECT_EQ(shards[0].block_borders, (std::vector<std::int64_t>{0, 4}));
  EXPECT_EQ(shards[1].block_borders, (std::vector<std::int64_t>{0, 1}));
}

// Blocks of the first group begin at 0, 4096, 8192 and, padded, at 10048; it ends at 10176.
TEST(Shards, LargestPartHasWholeBlocks) {
  const Fixture f;
  EXPECT_EQ(largest_part(f.table, 0, 1), 10176);
  EXPECT_EQ(largest_part(f.table, 0, 2), 8192);
  EXPECT_EQ(largest_part(f.table, 0, 3), 4096);
  EXPECT_EQ(largest_part(f.table, 1, 3), 64) << "one block goes to one rank";
}

// The stack holds the tree: what is merged are neighbours, halves of one node.
TEST(PairwiseTree, MergesTheHalvesOfEachNode) {
  for (int n = 1; n < 70; ++n) {
    std::set<std::pair<int, int>> nodes;
    const auto split = [&](auto& self, int begin, int end) -> void {
      nodes.emplace(begin, end);
      if (end - begin > 1) {
        const int middle = begin + (end - begin + 1) / 2;
        self(self, begin, middle);
        self(self, middle, end);
      }
    };
    split(split, 0, n);
    std::vector<std::pair<int, int>> stack;
    std::size_t deepest = 0;
    for (int i = 0; i < n; ++i) {
      deepest = std::max(deepest, stack.size());
      stack.emplace_back(i, i + 1);
      for (int merge = merges_after(i, n); merge > 0; --merge) {
        const auto right = stack.back();
        stack.pop_back();
        ASSERT_EQ(stack.back().second, right.first);
        stack.back().second = right.second;
        EXPECT_TRUE(nodes.contains(stack.back())) << n;
      }
    }
    ASSERT_EQ(stack.size(), 1u);
    EXPECT_EQ(static_cast<int>(deepest), waiting_sums(n)) << n;
  }
}

// What makes ranks invisible: the tree over n ranks of k terms each begins with the trees of k.
TEST(PairwiseTree, PowersOfTwoOfRanksContinueTheTree) {
  for (const int ranks : {2, 4, 8}) {
    for (int k = 1; k < 12; ++k) {
      for (int r = 0; r < ranks; ++r) {
        for (int i = 0; i < k; ++i) {
          const int of_ranks = i + 1 == k ? merges_after(r, ranks) : 0;
          EXPECT_EQ(merges_after(r * k + i, ranks * k), merges_after(i, k) + of_ranks);
        }
      }
    }
  }
}

}  // namespace
}  // namespace qnext
