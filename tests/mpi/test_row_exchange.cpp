// SPDX-License-Identifier: Apache-2.0
#include "parallel/row_exchange.hpp"
#include "tests/mpi/world.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <ostream>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::world;

constexpr int width = 3;

// Every number of every row is another one.
double number(int source, int group, int row, int column) {
  return ((source * 100.0 + group) * 1000.0 + row) * 10.0 + column;
}

void append_rows(int source, int group, int rows, std::vector<double>& list) {
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < width; ++column) {
      list.push_back(number(source, group, row, column));
    }
  }
}

// G groups, of which each rank has some rows; the formula leaves some of them empty.
struct Case {
  int groups_of_rank;
  int capacity;  // of rank 0; each further rank takes one row more in a round
  int (*rows)(int source, int group);

  int groups() const { return groups_of_rank * world().ranks(); }
  int capacity_of(int rank) const { return capacity + rank; }
};

void PrintTo(const Case& n, std::ostream* out) {
  *out << n.groups_of_rank << " groups a rank, " << n.capacity << " rows a round";
}

int uneven(int source, int group) {
  return (7 * source + 5 * group) % 4;
}
int one_group(int source, int group) {
  return group == 1 ? 6 + source : 0;
}
int none(int, int) {
  return 0;
}
int last_source(int source, int) {
  return source == world().ranks() - 1 ? 2 : 0;
}

class RowExchangeTest : public testing::TestWithParam<Case> {};

// The rows of all rounds, ordered as the pieces say, are the list of one rank that has all rows;
// what is sent back arrives where it came from.
TEST_P(RowExchangeTest, ListIsThatOfOneRankAndResultsComeHome) {
  const Case& n = GetParam();
  const int G = n.groups(), L = n.groups_of_rank, N = world().ranks(), own = world().rank();
  std::vector<int> count(G);
  std::vector<double> home, expected;
  for (int g = 0; g < G; ++g) {
    count[g] = n.rows(own, g);
    append_rows(own, g, count[g], home);
  }
  for (int g = own * L; g < (own + 1) * L; ++g) {
    for (int source = 0; source < N; ++source) {
      append_rows(source, g, n.rows(source, g), expected);
    }
  }
  int rounds = 0;
  for (int owner = 0; owner < N; ++owner) {
    int rows = 0;
    for (int g = owner * L; g < (owner + 1) * L; ++g) {
      for (int source = 0; source < N; ++source) {
        rows += n.rows(source, g);
      }
    }
    rounds = std::max(rounds, (rows + n.capacity_of(owner) - 1) / n.capacity_of(owner));
  }

  const int capacity = n.capacity_of(own);
  const RowExchange exchange(world(), count, capacity);
  ASSERT_EQ(exchange.rounds(), rounds);
  const int rows_at_home = static_cast<int>(home.size()) / width;
  const auto out = test::to_device(home, rows_at_home, width);
  const auto back = test::nan_tensor<double>(rows_at_home, width);
  std::vector<double> list;
  for (int r = 0; r < rounds; ++r) {
    const RowExchange::Round round = exchange.round(r);
    EXPECT_EQ(round.rows, std::min<int>(capacity, static_cast<int>(expected.size()) / width -
                                                      static_cast<int>(list.size()) / width));
    const auto message = test::nan_tensor<double>(capacity, width);
    exchange.to_owners(r, {{buffer_of(out), buffer_of(message), width * sizeof(double)}});
    const auto arrived = test::to_host(message);
    std::vector<double> ordered(round.rows * width, std::numeric_limits<double>::quiet_NaN());
    for (int piece = 0; piece < G; ++piece) {
      const int source = piece / L, l = piece % L;
      const int end = source + 1 < N ? round.ordered[piece + L] : round.offset[l + 1];
      for (int i = 0; i < (end - round.ordered[piece]) * width; ++i) {
        ordered[round.ordered[piece] * width + i] = arrived[round.arrived[piece] * width + i];
      }
    }
    list.insert(list.end(), ordered.begin(), ordered.end());
    exchange.to_sources(r, {{buffer_of(back), buffer_of(message), width * sizeof(double)}});
  }
  EXPECT_EQ(list, expected);
  EXPECT_EQ(test::to_host(back), home);
}

INSTANTIATE_TEST_SUITE_P(Counts, RowExchangeTest,
                         testing::Values(Case{3, 1000, uneven}, Case{3, 4, uneven},
                                         Case{5, 1, uneven}, Case{2, 5, one_group},
                                         Case{2, 5, none}, Case{1, 3, last_source}));

// The offsets of a round are those of the owned groups among its rows.
TEST(RowExchange, RoundsCutGroups) {
  const int N = world().ranks();
  const RowExchange exchange(world(), std::vector<int>(2 * N, 3), 4 * N);  // 6 N rows for each rank
  ASSERT_EQ(exchange.rounds(), 2);
  EXPECT_EQ(exchange.round(0).offset, (std::vector<int>{0, 3 * N, 4 * N}));
  EXPECT_EQ(exchange.round(1).offset, (std::vector<int>{0, 0, 2 * N}));
}

TEST(RowExchange, RefusesGroupsThatCannotBeShared) {
  if (world().ranks() == 1) {
    GTEST_SKIP() << "one rank shares nothing";
  }
  try {
    RowExchange(world(), std::vector<int>(2 * world().ranks() - 1, 0), 4);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(" groups over "), std::string::npos) << error.what();
  }
}

// A buffer that is too small is our defect; a rank alone meets it without another that waits.
TEST(RowExchange, RefusesABufferThatIsTooSmall) {
  const RowExchange exchange(Communicator{}, {2, 2}, 4);
  const auto home = test::nan_tensor<double>(4, width),
             message = test::nan_tensor<double>(3, width);
  EXPECT_THROW(
      exchange.to_owners(0, {{buffer_of(home), buffer_of(message), width * sizeof(double)}}),
      Error);
}

}  // namespace
}  // namespace qnext
