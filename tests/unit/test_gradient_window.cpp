// SPDX-License-Identifier: Apache-2.0
#include "app/gradient_window.hpp"
#include "tests/model_support.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace qnext {
namespace {

// Eight rows of 64 floats, 256 bytes each, in as many groups.
struct Fixture {
  ParameterTable table{256};
  std::vector<std::unique_ptr<Weight<float, 1>>> rows;

  explicit Fixture(int chunks = 1) {
    for (int i = 0; i < 8; ++i) {
      table.begin_chunk(i * chunks / 8);
      rows.push_back(std::make_unique<Weight<float, 1>>());
      table.add({.name = std::to_string(i), .shard = Shard::whole({64})}, *rows.back());
    }
  }
};

// With a row a piece, a group, its successor and those on the way are there at once.
TEST(GradientWindow, HoldsAFewPiecesAtATime) {
  const Fixture f;
  const GradientWindow window(f.table, {{{7}, {6}, {5}, {4}, {3}, {2}, {1}, {0}}});
  EXPECT_EQ(window.bytes, 256 * (1 + GradientWindow::pieces_on_the_way));
  EXPECT_EQ(window.groups[7].first_piece, 0);
  EXPECT_EQ(window.groups[0].last_piece, 7);
  EXPECT_EQ(window.groups[7].begin, window.groups[4].begin);
  EXPECT_EQ(window.groups[7].shares, (std::vector<std::size_t>{1, 4, 7}));
}

// What a first piece and a last one add to stays for the whole pass: an embedding that an MTP
// module takes.
TEST(GradientWindow, KeepsWhatAPassComesBackTo) {
  const Fixture f;
  const GradientWindow window(f.table, {{{7, 0}, {6}, {5}, {4}, {3}, {2}, {1}, {0}}});
  EXPECT_EQ(window.groups[0].first_piece, 0);
  EXPECT_EQ(window.groups[0].shares, (std::vector<std::size_t>{0}));
  EXPECT_EQ(window.bytes, 256 * (2 + GradientWindow::pieces_on_the_way));
}

TEST(GradientWindow, IsTheSameMemoryForAllChunks) {
  const Fixture f(2);
  const GradientWindow window(f.table, {{{3}, {2}, {1}, {0}}, {{7}, {6}, {5}, {4}}});
  EXPECT_EQ(window.bytes, 256 * (1 + GradientWindow::pieces_on_the_way));
  EXPECT_EQ(window.groups[3].begin, window.groups[7].begin);
}

TEST(GradientWindow, GivesTheTableItsMemory) {
  Fixture f;
  const GradientWindow window(f.table, {{{7}, {6}, {5}, {4}, {3}, {2}, {1}, {0}}});
  f.table.lay_out(window.begins(), window.bytes);
  EXPECT_EQ(f.rows[7]->grad.data(), f.rows[4]->grad.data());
  EXPECT_EQ(f.rows[6]->grad.data() - f.rows[7]->grad.data(), 64);
  EXPECT_NE(f.rows[7]->value.data(), f.rows[4]->value.data());
}

TEST(GradientWindow, RefusesAGroupThatNoPieceAddsTo) {
  const Fixture f;
  try {
    GradientWindow(f.table, {{{7}, {6}, {5}, {4}, {3}, {2}, {1}}});
    ADD_FAILURE() << "a group without a place was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("group 0 has no place in a backward pass"),
              std::string::npos)
        << error.what();
  }
}

// The pieces of a model have every row; only the embedding comes twice, and only where the module
// for multi-token prediction takes it too.
TEST(BackwardPieces, HaveEveryRowOfTheModel) {
  for (const int modules : {0, 1}) {
    ModelConfig config = test::small_model_config();
    config.mtp_modules = modules;
    ParameterTable table;
    const Model<float> model(config, {}, table);
    const auto chunks = model.backward_pieces();
    ASSERT_EQ(chunks.size(), 1u);
    EXPECT_EQ(static_cast<int>(chunks[0].size()), config.layers() + 2);
    std::vector<int> times(table.rows().size(), 0);
    for (const auto& piece : chunks[0]) {
      for (const std::size_t row : piece) {
        ++times[row];
      }
    }
    EXPECT_EQ(times.front(), 1 + modules);
    EXPECT_EQ(std::vector<int>(times.begin() + 1, times.end()),
              std::vector<int>(times.size() - 1, 1));
  }
}

}  // namespace
}  // namespace qnext
