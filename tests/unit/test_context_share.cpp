// SPDX-License-Identifier: Apache-2.0
#include "core/context_share.hpp"
#include "core/require.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace qnext {
namespace {

struct Case {
  std::vector<int> lengths;
  int sequences;
  int ranks;

  int tokens() const { return std::accumulate(lengths.begin(), lengths.end(), 0); }
  int sequence() const { return tokens() / sequences; }
  int piece() const { return sequence() / ranks; }
};

// Documents within a piece and over borders, of one token, that end with a piece, that fill one;
// pieces of one token and of odd length.
const std::vector<Case> cases = {
    {{24}, 1, 4},         {{7, 1, 4, 12}, 1, 4},      {{3}, 1, 3},         {{5, 10, 15}, 2, 3},
    {{2, 1, 3, 6}, 2, 2}, {{1, 20, 14, 7, 28}, 2, 5}, {{6, 6, 6, 6}, 2, 2}};

class Share : public testing::TestWithParam<Case> {};

std::vector<int> ints(const Tensor<const int, 1>& values) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), values);
  return {host.data(), host.data() + host.size()};
}

// Document and position of every token.
std::vector<std::pair<int, int>> tokens_of(const std::vector<int>& lengths) {
  std::vector<std::pair<int, int>> tokens;
  for (std::size_t n = 0; n < lengths.size(); ++n) {
    for (int i = 0; i < lengths[n]; ++i) {
      tokens.push_back({static_cast<int>(n), i});
    }
  }
  return tokens;
}

TEST_P(Share, DealsOutEveryTokenWithItsPlaceInItsDocument) {
  const Case c = GetParam();
  const auto all = tokens_of(c.lengths);
  std::vector<int> dealt(c.tokens(), 0);
  for (int rank = 0; rank < c.ranks; ++rank) {
    const auto share = ContextShare::make(c.lengths, c.sequences, c.ranks, rank);
    const auto position = ints(share.documents.position), document = ints(share.documents.document);
    const auto arrives = ints(share.documents.arrives), leaves = ints(share.documents.leaves);
    ASSERT_EQ(static_cast<int>(share.tokens.size()), c.tokens() / c.ranks);
    EXPECT_EQ(share.documents.sequences, c.sequences);
    for (std::size_t i = 0; i < share.tokens.size(); ++i) {
      const int t = share.tokens[i], s = t / c.sequence();
      ++dealt[t];
      EXPECT_EQ(position[i], all[t].second);
      const int n = document[i];
      const bool first = i == 0 || document[i - 1] != n;
      const bool last = i + 1 == share.tokens.size() || document[i + 1] != n;
      if (first) {
        EXPECT_EQ(arrives[n], all[t].second > 0 ? s : -1) << "token " << t;
      }
      if (last) {
        const bool ends = all[t].second + 1 == c.lengths[all[t].first];
        EXPECT_EQ(leaves[n], ends ? -1 : s) << "token " << t;
      }
      if (!first) {
        EXPECT_EQ(all[t].first, all[share.tokens[i - 1]].first);
      }
    }
  }
  EXPECT_EQ(dealt, std::vector<int>(c.tokens(), 1));
}

// The tokens whose queries, and whose keys, a rank has in the ring.
std::vector<int> ring_tokens(const Case& c, int rank) {
  std::vector<int> tokens;
  const int piece = c.piece(), mirror = c.ranks - 1 - rank;
  for (int s = 0; s < c.sequences; ++s) {
    for (int i = 0; i < piece; ++i) {
      const int owner = i < first_half(piece) ? rank : mirror;
      tokens.push_back(s * c.sequence() + owner * piece + i);
    }
  }
  return tokens;
}

// Every query meets every key of its document up to itself once, and no other.
TEST_P(Share, LetsEveryQueryMeetItsKeysOnce) {
  const Case c = GetParam();
  const auto all = tokens_of(c.lengths);
  std::map<std::pair<int, int>, int> met;
  for (int rank = 0; rank < c.ranks; ++rank) {
    const auto share = ContextShare::make(c.lengths, c.sequences, c.ranks, rank);
    const auto queries = ring_tokens(c, rank);
    ASSERT_EQ(share.ring->steps(), c.ranks);
    for (int step = 0; step < c.ranks; ++step) {
      const auto keys = ring_tokens(c, (rank + c.ranks - step) % c.ranks);
      for (const RunPairs& pairs : share.ring->pairs(step)) {
        const auto runs = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), pairs.runs);
        for (int p = 0; p < pairs.count; ++p) {
          EXPECT_LE(runs(p, 1), pairs.longest_queries);
          EXPECT_LE(runs(p, 3), pairs.longest_keys);
          for (int i = 0; i < runs(p, 1); ++i) {
            for (int j = 0; j < runs(p, 3); ++j) {
              if (j + runs(p, 4) <= i) {
                ++met[{queries[runs(p, 0) + i], keys[runs(p, 2) + j]}];
              }
            }
          }
        }
      }
    }
  }
  std::size_t expected = 0;
  for (int query = 0; query < c.tokens(); ++query) {
    for (int key = query - all[query].second; key <= query; ++key, ++expected) {
      EXPECT_EQ((met[{query, key}]), 1) << "query " << query << ", key " << key;
    }
  }
  EXPECT_EQ(met.size(), expected);
}

INSTANTIATE_TEST_SUITE_P(Cases, Share, testing::ValuesIn(cases));

// Of one document, with pieces of 2 m tokens: 2 m^2 pairs in every step but that of a rank's own
// keys, which has m (m + 1) of both diagonals and m^2 between the halves.
TEST(ShareOfOneDocument, GivesAllRanksTheSameWorkInEveryStep) {
  const int ranks = 4, m = 3;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto share = ContextShare::make({2 * m * ranks}, 1, ranks, rank);
    for (int step = 0; step < ranks; ++step) {
      int work = 0;
      for (const RunPairs& pairs : share.ring->pairs(step)) {
        const auto runs = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), pairs.runs);
        for (int p = 0; p < pairs.count; ++p) {
          for (int i = 0; i < runs(p, 1); ++i) {
            work += std::max(0, std::min(runs(p, 3), i - runs(p, 4) + 1));
          }
        }
      }
      EXPECT_EQ(work, step == 0 ? m * (m + 1) + m * m : 2 * m * m)
          << "rank " << rank << ", step " << step;
    }
  }
}

void expect_refused(const std::vector<int>& lengths, int sequences, int ranks,
                    const std::string& words) {
  try {
    ContextShare::make(lengths, sequences, ranks, 0);
    FAIL() << "accepted, wanted: " << words;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST(ShareRefuses, WhatDoesNotComeOutEven) {
  expect_refused({6, 4}, 2, 2,
                 "2 sequences of 5 tokens, wanted a multiple of the context degree 2");
  expect_refused({2, 0, 2}, 1, 2, "context: a document without tokens");
  expect_refused({6, 2}, 2, 2,
                 "a document of 6 tokens crosses the border of its sequence of 4 tokens");
}

}  // namespace
}  // namespace qnext
