// SPDX-License-Identifier: Apache-2.0
#include "parallel/process_grid.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace qnext {
namespace {

using test::world;

TEST(ProcessGrid, EveryRankHasAPlaceOfItsOwn) {
  const Degrees degrees{.tensor = 2, .context = 3, .pipeline = 2, .expert = 4, .data = 2};
  ASSERT_EQ(degrees.ranks(), 24);
  std::set<std::tuple<int, int, int, int>> places;
  for (int rank = 0; rank < degrees.ranks(); ++rank) {
    const Degrees p = place_of(degrees, rank);
    places.emplace(p.tensor, p.context, p.pipeline, p.data);
    EXPECT_LT(p.tensor, 2);
    EXPECT_LT(p.context, 3);
    EXPECT_LT(p.pipeline, 2);
    EXPECT_LT(p.data, 2);
    EXPECT_EQ(p.expert, rank % 12 % 4) << "consecutive ranks of one pipeline stage";
  }
  EXPECT_EQ(places.size(), 24u);
  EXPECT_EQ(place_of(degrees, 1).tensor, 1) << "tensor ranks are neighbours";
}

TEST(ProcessGrid, DataRanksShareTheOtherPlaces) {
  const int R = world().ranks();
  for (const int tensor : {1, 2}) {
    if (R % tensor != 0) {
      continue;
    }
    const ProcessGrid grid(Degrees{.tensor = tensor, .data = R / tensor}, world());
    EXPECT_EQ(grid.data.ranks(), R / tensor);
    EXPECT_EQ(grid.data.rank(), grid.place.data);
    EXPECT_EQ(world().rank(), grid.place.data * tensor + grid.place.tensor);
    std::vector<std::int64_t> largest{grid.place.tensor}, least{-grid.place.tensor};
    grid.data.maximum(largest);
    grid.data.maximum(least);
    EXPECT_EQ(largest.front(), grid.place.tensor);
    EXPECT_EQ(least.front(), -grid.place.tensor);
  }
}

// Members of a group say who they are by their rank in the job.
std::vector<int> members(const Communicator& group) {
  return group.all_gather(std::vector<int>{world().rank()});
}

TEST(ProcessGrid, ExpertRanksAreNeighboursAndOthersHoldTheSame) {
  const int R = world().ranks(), r = world().rank();
  for (int expert = 1; expert <= R; expert *= 2) {
    const ProcessGrid grid(Degrees{.expert = expert, .data = R}, world());
    std::vector<int> group, beside;
    for (int other = 0; other < R; ++other) {
      if (other / expert == r / expert) {
        group.push_back(other);
      }
      if (other % expert == r % expert) {
        beside.push_back(other);
      }
    }
    EXPECT_EQ(grid.place.expert, r % expert);
    EXPECT_EQ(grid.expert.rank(), grid.place.expert);
    EXPECT_EQ(members(grid.expert), group);
    EXPECT_EQ(members(grid.over(ReduceOver::data_beside_experts)), beside);
    EXPECT_EQ(grid.over(ReduceOver::data).ranks(), R);
  }
}

// Tensor 2 and expert 4 on the same four ranks.
TEST(ProcessGrid, ExpertsFoldOverTensorRanks) {
  if (world().ranks() != 4) {
    GTEST_SKIP() << "wants 4 ranks";
  }
  const ProcessGrid grid(Degrees{.tensor = 2, .expert = 4, .data = 2}, world());
  EXPECT_EQ(grid.expert.ranks(), 4);
  EXPECT_EQ(grid.beside_experts.ranks(), 1);
  EXPECT_EQ(grid.data.ranks(), 2);
}

// All that hold the same experts: the data ranks of the first tensor place, then of the second.
TEST(ProcessGrid, ExpertsThatNobodyDividesAreSharedByTheStage) {
  if (world().ranks() != 4) {
    GTEST_SKIP() << "wants 4 ranks";
  }
  const Degrees degrees{.tensor = 2, .data = 2};
  const ProcessGrid grid(degrees, world());
  EXPECT_EQ(members(grid.over(ReduceOver::data_beside_experts)), (std::vector<int>{0, 2, 1, 3}));
  EXPECT_EQ(ProcessGrid(degrees).ranks_over(ReduceOver::data_beside_experts), 4);
}

TEST(ProcessGrid, CopiesAreContextAndDataRanks) {
  if (world().ranks() != 4) {
    GTEST_SKIP() << "wants 4 ranks";
  }
  const ProcessGrid grid(Degrees{.context = 2, .data = 2}, world());
  EXPECT_EQ(members(grid.copies), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(members(grid.context).front(), world().rank() / 2 * 2);
  EXPECT_EQ(members(grid.data).front(), world().rank() % 2);
  EXPECT_EQ(grid.stage.ranks(), 4);
  const ProcessGrid stages(Degrees{.pipeline = 2, .data = 2}, world());
  EXPECT_EQ(members(stages.pipeline).back(), world().rank() % 2 + 2);
  EXPECT_EQ(stages.stage.ranks(), 2);
}

TEST(ProcessGrid, RefusesAnExpertDegreeThatDoesNotFoldOverItsRanks) {
  try {
    const ProcessGrid grid(Degrees{.expert = 3, .data = world().ranks()}, world());
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the expert degree, 3, must divide"),
              std::string::npos)
        << error.what();
  }
}

TEST(ProcessGrid, RefusesAJobOfAnotherSize) {
  EXPECT_THROW(ProcessGrid(Degrees{.data = world().ranks() + 1}, world()), Error);
}

TEST(ProcessGrid, MapNamesEveryRank) {
  const std::string map = rank_map(ProcessGrid(Degrees{.data = world().ranks()}, world()));
  for (int rank = 0; rank < world().ranks(); ++rank) {
    const std::string wanted = "rank=" + std::to_string(rank) + " host=";
    EXPECT_NE(map.find(wanted), std::string::npos) << map;
    EXPECT_NE(map.find(" data=" + std::to_string(rank) + " "), std::string::npos) << map;
  }
}

}  // namespace
}  // namespace qnext
