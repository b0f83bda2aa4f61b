// SPDX-License-Identifier: Apache-2.0
#include "app/microbatch.hpp"
#include "core/require.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace qnext {
namespace {

using Numbers = std::vector<double>;

// Two sequences of six tokens: a document of four and one of two, then one of six that the text
// goes on behind.
TokenBatch batch() {
  return {.tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
          .labels = {2, 3, 4, -1, 6, -1, 8, 9, 10, 11, 12, 13},
          .lengths = {4, 2, 6},
          .sequences = 2,
          .label_count = 10};
}

Microbatch piece_of(int rank, int ranks) {
  ProcessGrid grid(Degrees{.context = ranks});
  grid.place.context = rank;
  return to_device(batch(), grid);
}

TEST(Microbatch, GivesAContextRankItsPieceOfEverySequence) {
  const Microbatch first = piece_of(0, 2), second = piece_of(1, 2);
  EXPECT_EQ(test::to_host(first.tokens), (Numbers{1, 2, 3, 7, 8, 9}));
  EXPECT_EQ(test::to_host(first.labels), (Numbers{2, 3, 4, 8, 9, 10}));
  EXPECT_EQ(test::to_host(first.behind), (Numbers{4, -1, 10, 11}));
  EXPECT_EQ(test::to_host(second.tokens), (Numbers{4, 5, 6, 10, 11, 12}));
  EXPECT_EQ(test::to_host(second.labels), (Numbers{-1, 6, -1, 11, 12, 13}));
  EXPECT_EQ(test::to_host(second.documents.position), (Numbers{3, 0, 1, 3, 4, 5}));
  EXPECT_EQ(test::to_host(second.documents.arrives), (Numbers{0, -1, 1}));
  EXPECT_EQ(second.documents.ring, second.ring.get());
}

TEST(Microbatch, OfARankAloneIsTheBatch) {
  const Microbatch all = to_device(batch());
  EXPECT_EQ(all.tokens.size(), 12u);
  EXPECT_EQ(all.behind.size(), 0u);
  EXPECT_EQ(all.documents.arrives.size(), 0u);
  EXPECT_EQ(all.ring, nullptr);
}

TEST(Microbatch, IsFilledUpWithIgnoredTokens) {
  TokenBatch odd{.tokens = {1, 2, 3, 4, 5},
                 .labels = {2, 3, 4, 5, -1},
                 .lengths = {5},
                 .sequences = 1,
                 .label_count = 4};
  const TokenBatch even = fill_up(odd, 2, 1);
  EXPECT_EQ(even.tokens, (std::vector<std::int32_t>{1, 2, 3, 4, 5, 0}));
  EXPECT_EQ(even.labels, (std::vector<std::int32_t>{2, 3, 4, 5, -1, -1}));
  EXPECT_EQ(even.lengths, (std::vector<int>{5, 1}));
  EXPECT_EQ(even.label_count, 4);
  EXPECT_EQ(fill_up(odd, 2, 4).tokens.size(), 8u) << "four tokens a rank at least";
  EXPECT_EQ(fill_up(odd, 1, 9).tokens, odd.tokens);
  EXPECT_EQ(fill_up(batch(), 3, 2).tokens, batch().tokens);
  try {
    fill_up(batch(), 4, 1);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what())
                  .find("several sequences are filled up to a multiple of context ranks"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace qnext
