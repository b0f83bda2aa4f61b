// SPDX-License-Identifier: Apache-2.0
#include "io/data_shuffle.hpp"
#include "io/data_stream.hpp"
#include "tests/token_files.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <set>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::message_of;
using test::TemporaryFolder;
using test::write_file;

using Ids = std::vector<std::int32_t>;

// Bytes without a period in sight, so that a shifted window is noticed.
std::string letters(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += static_cast<char>('a' + random_bits(1, static_cast<std::uint64_t>(i)) % 26);
  }
  return text;
}

Ids ids_of(const std::string& text) {
  Ids ids;
  for (const char c : text) {
    ids.push_back(static_cast<unsigned char>(c));
  }
  return ids;
}

StreamConfig config_of(std::vector<std::string> paths, int sequence) {
  StreamConfig config{.sequence = sequence, .vocabulary = 256};
  for (std::string& path : paths) {
    config.sources.push_back({.path = std::move(path)});
  }
  return config;
}

void expect_equal(const TokenBatch& a, const TokenBatch& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.lengths, b.lengths);
  EXPECT_EQ(a.sequences, b.sequences);
  EXPECT_EQ(a.label_count, b.label_count);
}

// What every batch must keep, whatever the data are.
void expect_sound(const TokenBatch& batch) {
  ASSERT_EQ(batch.tokens.size(), batch.labels.size());
  EXPECT_EQ(std::accumulate(batch.lengths.begin(), batch.lengths.end(), std::size_t{0}),
            batch.tokens.size());
  EXPECT_EQ(std::count_if(batch.labels.begin(), batch.labels.end(), [](int l) { return l >= 0; }),
            batch.label_count);
  std::size_t begin = 0;
  for (const int length : batch.lengths) {
    ASSERT_GT(length, 0);
    for (std::size_t t = begin; t + 1 < begin + static_cast<std::size_t>(length); ++t) {
      EXPECT_TRUE(batch.labels[t] == batch.tokens[t + 1] || batch.labels[t] == -1) << t;
    }
    begin += static_cast<std::size_t>(length);
  }
}

TEST(Shuffle, IsABijectionForEveryCountAndKey) {
  for (const std::int64_t count : {1, 2, 3, 4, 5, 15, 16, 17, 63, 65, 1000, 4096, 4097}) {
    for (const std::uint64_t key : {0u, 1u, 77u}) {
      std::set<std::int64_t> seen;
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t to = shuffled(i, count, key);
        ASSERT_GE(to, 0);
        ASSERT_LT(to, count);
        seen.insert(to);
      }
      EXPECT_EQ(static_cast<std::int64_t>(seen.size()), count);
    }
  }
  const std::int64_t huge = (std::int64_t{1} << 52) + 5;
  EXPECT_NE(shuffled(0, huge, 1), shuffled(1, huge, 1));
  EXPECT_LT(shuffled(huge - 1, huge, 1), huge);
}

// Where the elements of 1000 land: on average as far away as in a random order, which is a third of
// the count with a deviation of count / sqrt(18 count) = 7.5; six of them are 45.
TEST(Shuffle, ScattersAndDependsOnTheKey) {
  const std::int64_t count = 1000;
  std::int64_t distance = 0, equal = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    distance += std::abs(shuffled(i, count, 5) - i);
    equal += shuffled(i, count, 5) == shuffled(i, count, 6) ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(distance) / count, 333.3, 45.0);
  EXPECT_LT(equal, 8);  // one is expected
}

// The layout of golden/training.json: row i of step s starts at byte (s * batch + i) * sequence.
TEST(TokenStream, PlainTextInFileOrderHasALabelEverywhere) {
  const TemporaryFolder folder;
  const std::string text = letters(1000);
  StreamConfig config = config_of({write_file(folder, "a.txt", text)}, 64);
  config.shuffle = false;
  const TokenStream stream(config);
  DataCursor cursor = stream.start();
  for (int step = 0; step < 7; ++step) {
    const TokenBatch batch = stream.batch(cursor, 0, 2);
    const auto at = static_cast<std::size_t>(step * 2 * 64);
    EXPECT_EQ(batch.tokens, ids_of(text.substr(at, 128)));
    EXPECT_EQ(batch.labels, ids_of(text.substr(at + 1, 128)));
    EXPECT_EQ(batch.lengths, (std::vector<int>{64, 64}));
    EXPECT_EQ(batch.sequences, 2);
    EXPECT_EQ(batch.label_count, 128);
    cursor.sequences += 2;
  }
  EXPECT_EQ(stream.most_documents(), 1);
  // 999 labels make 15 windows; the sixteenth is the first of the next epoch.
  EXPECT_EQ(stream.batch({15, 0}, 0, 1).tokens, ids_of(text.substr(0, 64)));
}

TEST(TokenStream, AnEpochOfShuffledWindowsHasEveryWindowOnce) {
  const TemporaryFolder folder;
  const std::string text = letters(1000);
  const TokenStream stream(config_of({write_file(folder, "a.txt", text)}, 64));
  std::set<std::size_t> first_epoch;
  std::vector<std::size_t> order[2];
  for (int epoch = 0; epoch < 2; ++epoch) {
    std::set<std::size_t> seen;
    for (int i = 0; i < 15; ++i) {
      const TokenBatch batch = stream.batch(stream.start(), 15 * epoch + i, 1);
      const std::string window(batch.tokens.begin(), batch.tokens.end());
      const std::size_t at = text.find(window);
      ASSERT_NE(at, text.npos);
      EXPECT_EQ(at % 64, 0u);
      seen.insert(at);
      order[epoch].push_back(at);
    }
    EXPECT_EQ(seen.size(), 15u);
  }
  EXPECT_NE(order[0], order[1]);
}

TEST(TokenStream, WithManyWindowsTheGridMovesFromEpochToEpoch) {
  const TemporaryFolder folder;
  const std::string text = letters(8 * 70 + 3);
  const TokenStream stream(config_of({write_file(folder, "a.txt", text)}, 8));
  const std::int64_t windows = stream.progress(stream.start())[0].windows;
  EXPECT_EQ(windows, 69);
  std::set<std::size_t> grids;
  for (std::int64_t epoch = 0; epoch < 20; ++epoch) {
    std::set<std::size_t> seen, grid;
    for (std::int64_t i = 0; i < windows; ++i) {
      const TokenBatch batch = stream.batch(stream.start(), windows * epoch + i, 1);
      EXPECT_EQ(batch.label_count, 8);
      const std::size_t at = text.find(std::string(batch.tokens.begin(), batch.tokens.end()));
      seen.insert(at);
      grid.insert(at % 8);
    }
    EXPECT_EQ(static_cast<std::int64_t>(seen.size()), windows);
    EXPECT_EQ(grid.size(), 1u);
    grids.insert(*grid.begin());
  }
  EXPECT_GT(grids.size(), 4u);
}

TEST(TokenStream, SequencesAreAFunctionOfSeedAndIndexAlone) {
  const TemporaryFolder folder;
  StreamConfig config = config_of({write_file(folder, "a.txt", letters(5000)),
                                   write_file(folder, "b.txt", letters(700)), "synthetic:copy"},
                                  33);
  config.sources[1].weight = 0.25;
  const TokenStream stream(config), again(config);
  const TokenBatch whole = stream.batch(stream.start(), 100, 12);
  expect_sound(whole);
  TokenBatch joined;
  for (int rank = 0; rank < 4; ++rank) {  // as four data ranks take them, after a resume
    const TokenBatch part = again.batch({90, again.start().fingerprint}, 10 + 3 * rank, 3);
    joined.tokens.insert(joined.tokens.end(), part.tokens.begin(), part.tokens.end());
    joined.labels.insert(joined.labels.end(), part.labels.begin(), part.labels.end());
    joined.lengths.insert(joined.lengths.end(), part.lengths.begin(), part.lengths.end());
    joined.sequences += part.sequences;
    joined.label_count += part.label_count;
  }
  expect_equal(joined, whole);
  config.seed = 2;
  EXPECT_NE(TokenStream(config).batch({0, 0}, 100, 12).tokens, whole.tokens);
}

TEST(TokenStream, ACursorBelongsToItsData) {
  const TemporaryFolder folder;
  StreamConfig config = config_of({write_file(folder, "a.txt", letters(5000))}, 33);
  const TokenStream stream(config);
  EXPECT_NO_THROW(stream.check(stream.start()));
  std::filesystem::rename(folder / "a.txt", folder / "moved.txt");
  config.sources[0].path = folder / "moved.txt";
  EXPECT_NO_THROW(TokenStream(config).check(stream.start()));
  const auto refused = [&](auto change) {
    StreamConfig other = config;
    change(other);
    return message_of([&] { TokenStream(other).check(stream.start()); }).substr(0, 48);
  };
  const std::string belongs = "data: the restart belongs to other data (fingerp";
  EXPECT_EQ(refused([](StreamConfig& c) { c.sequence = 32; }), belongs);
  EXPECT_EQ(refused([](StreamConfig& c) { c.seed = 5; }), belongs);
  EXPECT_EQ(refused([](StreamConfig& c) { c.shuffle = false; }), belongs);
  EXPECT_EQ(refused([](StreamConfig& c) { c.held_out = 0.5; }), belongs);
  EXPECT_EQ(refused([](StreamConfig& c) { c.sources.push_back(c.sources[0]); }), belongs);
  EXPECT_EQ(refused([](StreamConfig&) {}), "no error");
  std::string text = letters(5000);
  text[7] = '!';
  write_file(folder, "moved.txt", text);
  EXPECT_EQ(refused([](StreamConfig&) {}), belongs);
}

TEST(TokenStream, PackedDocumentsKeepTheirBorders) {
  const TemporaryFolder folder;
  StreamConfig config =
      config_of({write_file(folder, "a.txt", "abcdefg\n-\nh\n-\nijk\n-\nlmnop")}, 6);
  config.sources[0].separator = "-";
  config.shuffle = false;
  const TokenStream stream(config);  // abcdefg. h. ijk. lmnop, the dot being a line break
  const TokenBatch batch = stream.batch(stream.start(), 0, 3);
  expect_sound(batch);
  EXPECT_EQ(batch.tokens, ids_of("abcdefg\nh\nijk\nlmno"));
  EXPECT_EQ(batch.lengths, (std::vector<int>{6, 2, 2, 2, 2, 4}));
  Ids labels = ids_of("bcdefg\n*\n*jk\n*mnop");
  std::replace(labels.begin(), labels.end(), static_cast<std::int32_t>('*'), -1);
  EXPECT_EQ(batch.labels, labels);
  EXPECT_EQ(batch.label_count, 15);
  EXPECT_EQ(stream.most_documents(), 3);
}

TEST(TokenStream, WithoutPackingADocumentIsASequence) {
  const TemporaryFolder folder;
  StreamConfig config = config_of({write_file(folder, "a.txt", "abcdefgh\n-\ni\n-\njklm")}, 5);
  config.sources[0].separator = "-";
  config.shuffle = config.pack = false;
  const TokenStream stream(config);
  const TokenBatch batch = stream.batch(stream.start(), 0, 4);  // the fourth is the first again
  expect_sound(batch);
  Ids tokens = ids_of("abcdei\n000jklm0abcde"), labels = ids_of("bcdef\n****klm**bcdef");
  std::replace(tokens.begin(), tokens.end(), static_cast<std::int32_t>('0'), 0);
  std::replace(labels.begin(), labels.end(), static_cast<std::int32_t>('*'), -1);
  EXPECT_EQ(batch.tokens, tokens);
  EXPECT_EQ(batch.labels, labels);
  EXPECT_EQ(batch.lengths, (std::vector<int>{5, 2, 3, 4, 1, 5}));
  EXPECT_EQ(batch.sequences, 4);
  EXPECT_EQ(stream.most_documents(), 2);
}

TEST(TokenStream, NoSequenceHasMoreDocumentsThanPromised) {
  const TemporaryFolder folder;
  std::vector<std::vector<std::uint16_t>> documents;
  for (int d = 0; d < 400; ++d) {
    documents.emplace_back(random_bits(9, static_cast<std::uint64_t>(d)) % 12, 7);
  }
  test::write_indexed(folder, "t", 8, documents);
  for (const bool pack : {true, false}) {
    StreamConfig config = config_of({folder / "t"}, 17);
    config.pack = pack;
    const TokenStream stream(config);
    int most = 0;
    for (int i = 0; i < 500; ++i) {
      const TokenBatch batch = stream.batch(stream.start(), i, 1);
      expect_sound(batch);
      EXPECT_EQ(batch.tokens.size(), 17u);
      most = std::max(most, static_cast<int>(batch.lengths.size()));
    }
    EXPECT_LE(most, stream.most_documents());
    EXPECT_GE(most, stream.most_documents() - 2);
  }
}

TEST(TokenStream, BlendsKeepTheirProportionsEverywhere) {
  const TemporaryFolder folder;
  StreamConfig config = config_of({write_file(folder, "a.txt", std::string(3000, 'a')),
                                   write_file(folder, "b.txt", std::string(500, 'b')),
                                   write_file(folder, "c.txt", std::string(900, 'c'))},
                                  4);
  config.sources[0].weight = 6.0;
  config.sources[1].weight = 3.0;
  config.sources[2].weight = 1.0;
  const TokenStream stream(config);
  std::vector<std::int64_t> counts(3, 0);
  for (std::int64_t i = 0; i < 5000; ++i) {
    ++counts[static_cast<std::size_t>(stream.batch(stream.start(), i, 1).tokens[0] - 'a')];
    // Whoever is furthest behind is served next, so nobody is ever further than one sequence.
    for (std::size_t s = 0; s < 3; ++s) {
      const double due = config.sources[s].weight / 10.0 * static_cast<double>(i + 1);
      ASSERT_NEAR(static_cast<double>(counts[s]), due, 1.5) << "source " << s << " at " << i;
    }
  }
  const auto progress = stream.progress({5000, 0});
  for (std::size_t s = 0; s < 3; ++s) {
    EXPECT_EQ(progress[s].epoch * progress[s].windows + progress[s].window, counts[s]);
  }
  // Over whole rounds of 65536 places the shares are exact to one place.
  const auto rounds = stream.progress({10 * 65536, 0});
  EXPECT_NEAR(static_cast<double>(rounds[0].epoch * rounds[0].windows + rounds[0].window),
              0.6 * 655360, 10.0);
}

TEST(TokenStream, TrainingStopsBeforeTheHeldOutPart) {
  const TemporaryFolder folder;
  StreamConfig config =
      config_of({write_file(folder, "a.txt", std::string(900, 'a') + std::string(100, 'z'))}, 9);
  config.held_out = 0.1;
  const TokenStream stream(config);
  EXPECT_EQ(stream.tokens(), 900);
  const TokenBatch batch = stream.batch(stream.start(), 0, 500);
  EXPECT_EQ(std::count(batch.labels.begin(), batch.labels.end(), 'z'), 0);
  EXPECT_EQ(batch.label_count, 4500);

  config.pack = false;
  config.sources[0].separator = "-";
  write_file(folder, "a.txt", "aaaa\n-\nbbbb\n-\ncccc\n-\nzz\n");
  config.held_out = 0.3;  // token 12 of 18 is the first: inside the third document
  EXPECT_EQ(TokenStream(config).tokens(), 15);
  EXPECT_EQ(EvaluationStream(config).windows(), 1);
}

TEST(EvaluationStream, EveryHeldOutByteIsALabelOnce) {
  const TemporaryFolder folder;
  const std::string text = letters(1000);
  for (const int sequence : {7, 64, 99, 100, 101, 2000}) {
    StreamConfig config = config_of({write_file(folder, "a.txt", text)}, sequence);
    config.held_out = 0.1;
    const EvaluationStream stream(config);
    Ids labels, tokens;
    for (std::int64_t w = 0; w < stream.windows(); w += 3) {
      const TokenBatch batch = stream.batch(w, 3);
      expect_sound(batch);
      EXPECT_LE(batch.tokens.size(), 3u * static_cast<std::size_t>(sequence));
      EXPECT_EQ(static_cast<std::size_t>(batch.sequences), batch.lengths.size());
      labels.insert(labels.end(), batch.labels.begin(), batch.labels.end());
      tokens.insert(tokens.end(), batch.tokens.begin(), batch.tokens.end());
    }
    EXPECT_EQ(labels, ids_of(text.substr(900)));
    EXPECT_EQ(tokens, ids_of(text.substr(899, 100)));
  }
}

TEST(EvaluationStream, AFileOfItsOwnIsReadWholeAndSourcesFollowEachOther) {
  const TemporaryFolder folder;
  const std::string a = letters(50), b = letters(23);
  const EvaluationStream stream(
      config_of({write_file(folder, "a.txt", a), write_file(folder, "b.txt", b)}, 10));
  EXPECT_EQ(stream.windows(), 5 + 3);
  const TokenBatch all = stream.batch(0, 100);
  EXPECT_EQ(all.labels, ids_of(a.substr(1) + b.substr(1)));
  EXPECT_EQ(all.lengths, (std::vector<int>{10, 10, 10, 10, 9, 10, 10, 2}));
  EXPECT_EQ(stream.batch(4, 2).lengths, (std::vector<int>{9, 10}));
  EXPECT_EQ(stream.batch(7, 5).labels, ids_of(b.substr(21)));
}

TEST(DataStreams, WhatCannotBeTrainedOnIsRefused) {
  const TemporaryFolder folder;
  const auto path = write_file(folder, "a.txt", letters(64));
  StreamConfig config = config_of({path}, 64);
  EXPECT_EQ(message_of([&] { TokenStream stream(config); }),
            path +
                ": 64 tokens in 1 documents, of which the last 0 is held out, give no sequence of "
                "64 tokens to train on");
  config.sequence = 8;
  config.sources[0].weight = 0.0;
  EXPECT_EQ(message_of([&] { TokenStream stream(config); }),
            path + ": weight = 0, expected more than 0");
  config.sources[0].weight = 1.0;
  config.vocabulary = 'y';
  write_file(folder, "a.txt", "abcyabcab");
  config.shuffle = false;
  EXPECT_EQ(message_of([&] {
              TokenStream(config).batch({0, 0}, 0, 1);
            }),
            path + ": token 3 is 121, but the vocabulary has 121");
  EXPECT_EQ(message_of([&] { TokenStream stream(config_of({}, 8)); }),
            "data: no source is given, expected at least one path");
  write_file(folder, "a.txt", "a");
  EXPECT_EQ(message_of([&] { EvaluationStream stream(config); }),
            path + ": nothing is left to evaluate on: the last 0 of 1 tokens");
}

}  // namespace
}  // namespace qnext
