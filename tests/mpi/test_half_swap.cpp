// SPDX-License-Identifier: Apache-2.0
#include "core/context_share.hpp"
#include "core/require.hpp"
#include "parallel/half_swap.hpp"
#include "parallel/shift.hpp"
#include "tests/mpi/world.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace qnext {
namespace {

using test::world;
using Numbers = std::vector<double>;

// Number of column w of row i of a rank.
double number(int rank, int i, int w) {
  return 1000 * rank + 10 * i + w;
}

template <class T>
void expect_swap(int pieces, int piece) {
  const int rank = world().rank(), mirror = world().ranks() - 1 - rank, W = 3;
  Numbers mine, swapped;
  for (int i = 0; i < pieces * piece; ++i) {
    const bool second = i % piece >= first_half(piece);
    for (int w = 0; w < W; ++w) {
      mine.push_back(static_cast<double>(T(number(rank, i, w))));
      swapped.push_back(static_cast<double>(T(number(second ? mirror : rank, i, w))));
    }
  }
  const auto rows = test::to_device<T>(mine, pieces * piece, W);
  const auto buffer = test::nan_tensor<T>(HalfSwap::room(pieces * piece, piece, W));
  const HalfSwap halves(world(), piece);
  halves.swap<T>(Exec{}, rows, buffer);
  EXPECT_EQ(test::to_host(rows), swapped) << pieces << " pieces of " << piece;
  halves.swap<T>(Exec{}, rows, buffer);
  EXPECT_EQ(test::to_host(rows), mine) << "twice";
}

TEST(HalfSwap, ChangesSecondHalvesWithTheMirror) {
  for (const int pieces : {1, 2, 5}) {
    for (const int piece : {1, 2, 5, 8}) {
      expect_swap<float>(pieces, piece);
      expect_swap<double>(pieces, piece);
      expect_swap<bf16>(pieces, piece);
    }
  }
}

TEST(HalfSwap, WantsRoomForTheHalves) {
  if (world().ranks() % 2 != 0) {
    GTEST_SKIP() << "the rank in the middle keeps its half and needs no room";
  }
  const auto rows = test::nan_tensor<float>(4, 3), buffer = test::nan_tensor<float>(2, 3);
  try {
    HalfSwap(world(), 4).swap<float>(Exec{}, rows, Tensor<float, 1>(buffer.data(), 5));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("half_swap: room for 5 numbers, wanted 6"),
              std::string::npos)
        << error.what();
  }
}

TEST(Shift, GoesToTheNeighboursAndRound) {
  const int rank = world().rank(), ranks = world().ranks();
  const auto mine = test::to_device<float>({1.0 * rank, -1.0}, 2);
  const auto of = [](int from) { return Numbers{1.0 * from, -1.0}; };
  const auto from_left = test::to_device<float>({7.0, 7.0}, 2);
  shift_right(world(), mine, from_left);
  EXPECT_EQ(test::to_host(from_left), rank > 0 ? of(rank - 1) : (Numbers{7.0, 7.0}));
  const auto from_right = test::to_device<float>({7.0, 7.0}, 2);
  shift_left(world(), mine, from_right);
  EXPECT_EQ(test::to_host(from_right), rank + 1 < ranks ? of(rank + 1) : (Numbers{7.0, 7.0}));
  const auto round = test::to_device<float>({7.0, 7.0}, 2);
  start_rotation(world(), mine, round).wait();
  EXPECT_EQ(test::to_host(round), of((rank + ranks - 1) % ranks));
}

}  // namespace
}  // namespace qnext
