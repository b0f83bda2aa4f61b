// SPDX-License-Identifier: Apache-2.0
#include "io/token_source.hpp"
#include "tests/token_files.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::little_endian;
using test::message_of;
using test::TemporaryFolder;
using test::write_file;

std::vector<std::int32_t> ids(const TokenSource& source, std::int64_t begin, std::int64_t count) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(count), -99);
  source.read(begin, count, out.data());
  return out;
}

std::string text(const TokenSource& source, std::int64_t begin, std::int64_t count) {
  const auto all = ids(source, begin, count);
  return std::string(all.begin(), all.end());
}

std::vector<std::int64_t> begins(const TokenSource& source) {
  std::vector<std::int64_t> all;
  for (std::int64_t d = 0; d <= source.documents(); ++d) {
    all.push_back(source.document_begin(d));
  }
  return all;
}

TEST(TextSource, BytesAreTokensAndTheFileIsOneDocument) {
  const TemporaryFolder folder;
  const auto source =
      open_token_source({.path = write_file(folder, "a.txt", "h\xc3\xa9\n\xff")}, 256, 1);
  EXPECT_EQ(source->documents(), 1);
  EXPECT_EQ(ids(*source, 0, source->tokens()),
            (std::vector<std::int32_t>{'h', 0xc3, 0xa9, '\n', 0xff}));
  EXPECT_EQ(source->most_documents(3), 1);
}

TEST(TextSource, ASeparatorLineSplitsDocumentsAndIsNoText) {
  const TemporaryFolder folder;
  const auto path = write_file(folder, "a.txt", "--\none\n--\n--\nt--\n--o\n--\r\nthree --\n--");
  const auto source = open_text(path, "--");
  EXPECT_EQ(source->documents(), 3);
  EXPECT_EQ(begins(*source), (std::vector<std::int64_t>{0, 4, 12, 21}));
  EXPECT_EQ(text(*source, 0, 21), "one\nt--\n--o\nthree --\n");
  EXPECT_EQ(text(*source, 2, 4), "e\nt-");
  EXPECT_EQ(source->document_of(3), 0);
  EXPECT_EQ(source->document_of(4), 1);
  EXPECT_EQ(source->document_of(20), 2);
}

TEST(TextSource, FilesThatHoldNothingAreRefused) {
  const TemporaryFolder folder;
  const auto empty = write_file(folder, "empty.txt", "");
  EXPECT_EQ(message_of([&] { open_text(empty, ""); }), empty + ": is empty, expected text");
  const auto lines = write_file(folder, "lines.txt", "--\n--\n");
  EXPECT_EQ(message_of([&] { open_text(lines, "--"); }),
            lines + ": holds nothing but separator lines (--)");
  EXPECT_EQ(message_of([&] { open_text(folder / "absent.txt", ""); }),
            (folder / "absent.txt") + ": cannot be read: No such file or directory");
  EXPECT_EQ(message_of([&] { open_text(folder.path(), ""); }),
            folder.path() + ": cannot be read: Is a directory");
}

template <class Id>
void expect_indexed(int type, const std::vector<std::vector<Id>>& documents) {
  const TemporaryFolder folder;
  test::write_indexed(folder, "t", type, documents);
  for (const char* path : {"t", "t.bin", "t.idx"}) {
    const auto source = open_token_source({.path = folder / path}, 256, 1);
    ASSERT_EQ(source->documents(), static_cast<std::int64_t>(documents.size()));
    for (std::size_t d = 0; d < documents.size(); ++d) {
      const std::int64_t begin = source->document_begin(static_cast<std::int64_t>(d));
      const std::int64_t end = source->document_begin(static_cast<std::int64_t>(d) + 1);
      EXPECT_EQ(ids(*source, begin, end - begin),
                std::vector<std::int32_t>(documents[d].begin(), documents[d].end()));
    }
    EXPECT_EQ(source->document_begin(source->documents()), source->tokens());
  }
}

TEST(IndexedSource, ReadsEveryIntegerType) {
  expect_indexed<std::uint8_t>(1, {{1, 2, 255}, {7}});
  expect_indexed<std::int8_t>(2, {{1, 2, 127}, {}, {7}});
  expect_indexed<std::int16_t>(3, {{1, 2, 32767}, {7}});
  expect_indexed<std::int32_t>(4, {{}, {151935, 0}, {7, 8, 9}, {}});
  expect_indexed<std::int64_t>(5, {{1, 2, 2147483647}, {7}});
  expect_indexed<std::uint16_t>(8, {{1, 2, 65535}, {7}});
}

TEST(IndexedSource, ADocumentMayHaveSeveralSequences) {
  const TemporaryFolder folder;
  write_file(folder, "t.bin", std::string("\1\2\3\4\5", 5));
  std::string index = std::string("MMIDIDX\0\0", 9) + little_endian<std::uint64_t>(1) + '\1' +
                      little_endian<std::uint64_t>(3) + little_endian<std::uint64_t>(3);
  for (const std::int32_t length : {2, 1, 2}) {
    index += little_endian(length);
  }
  for (const std::int64_t value : {0, 2, 3, /* documents */ 0, 2, 3}) {
    index += little_endian(value);
  }
  write_file(folder, "t.idx", index + std::string(3, '\0'));  // with the modes of multimodal files
  EXPECT_EQ(begins(*open_indexed(folder / "t")), (std::vector<std::int64_t>{0, 3, 5}));
}

// A good file of two documents (3 and 1 ids of two bytes), then one field of it overwritten.
struct Broken {
  const char* what;
  std::size_t at;      // byte in the index
  std::string bytes;   // what to write there
  std::string reason;  // "IDX" and "BIN" stand for the paths
};

TEST(IndexedSource, HostileIndexesAreRefused) {
  const TemporaryFolder folder;
  test::write_indexed<std::uint16_t>(folder, "good", 8, {{1, 2, 3}, {4}});
  const std::string good = test::bytes_of(folder / "good.idx");
  ASSERT_EQ(good.size(), 34u + 2 * 4 + 2 * 8 + 3 * 8);
  write_file(folder, "t.bin", test::bytes_of(folder / "good.bin"));
  constexpr std::uint64_t huge = 0x1555555555555556;  // times 12 is 8 again
  const std::vector<Broken> cases = {
      {"magic", 0, "X", "does not start with MMIDIDX, the mark of Megatron-LM's indexed files"},
      {"version", 9, little_endian<std::uint64_t>(2), "version 2, expected 1"},
      {"float", 17, "\6",
       "data type 6, expected 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64 or 8 uint16"},
      {"no type", 17, std::string(1, '\0'),
       "data type 0, expected 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64 or 8 uint16"},
      {"wider type", 17, "\4", "sequence 0 ends at byte 12, but BIN has 8"},
      {"more sequences", 18, little_endian<std::uint64_t>(5),
       "5 sequences and 3 documents do not fit into 82 bytes"},
      {"wrapping sequences", 18, little_endian(huge),
       "1537228672809129302 sequences and 3 documents do not fit into 82 bytes"},
      {"wrapping documents", 26, little_endian<std::uint64_t>(0x2000000000000003),
       "2 sequences and 2305843009213693955 documents do not fit into 82 bytes"},
      {"fewer documents", 26, little_endian<std::uint64_t>(2),
       "8 bytes are left behind 2 sequences and 2 documents, expected none"},
      {"negative length", 34, little_endian<std::int32_t>(-3), "sequence 0 has the length -3"},
      {"shorter", 34, little_endian<std::int32_t>(2),
       "sequence 1 starts at byte 6, expected 4: no overlap, no gap"},
      {"too long", 38, little_endian<std::int32_t>(2), "sequence 1 ends at byte 10, but BIN has 8"},
      {"too short", 38, little_endian<std::int32_t>(0), "describes 6 bytes, but BIN has 8"},
      {"overlap", 50, little_endian<std::int64_t>(4),
       "sequence 1 starts at byte 4, expected 6: no overlap, no gap"},
      {"negative pointer", 42, little_endian<std::int64_t>(-8),
       "sequence 0 starts at byte -8, expected 0: no overlap, no gap"},
      {"first document", 58, little_endian<std::int64_t>(1),
       "the documents must run from sequence 0 to 2"},
      {"last document", 74, little_endian<std::int64_t>(9),
       "the documents must run from sequence 0 to 2"},
      {"document behind", 66, little_endian<std::int64_t>(3),
       "document 1 starts with sequence 3, the one before with 0"},
      {"document negative", 66, little_endian<std::int64_t>(-1),
       "document 1 starts with sequence -1, the one before with 0"},
  };
  for (const Broken& broken : cases) {
    std::string index = good;
    index.replace(broken.at, broken.bytes.size(), broken.bytes);
    write_file(folder, "t.idx", index);
    std::string expected = (folder / "t.idx") + ": " + broken.reason;
    if (const auto at = expected.find("BIN"); at != std::string::npos) {
      expected.replace(at, 3, folder / "t.bin");
    }
    EXPECT_EQ(message_of([&] { open_indexed(folder / "t"); }), expected) << broken.what;
  }
}

TEST(IndexedSource, EveryTruncationIsRefused) {
  const TemporaryFolder folder;
  test::write_indexed<std::uint16_t>(folder, "t", 8, {{1, 2, 3}, {4}});
  const std::string index = test::bytes_of(folder / "t.idx"),
                    bin = test::bytes_of(folder / "t.bin");
  for (std::size_t size = 0; size < index.size(); ++size) {
    write_file(folder, "t.idx", index.substr(0, size));
    EXPECT_THROW(open_indexed(folder / "t"), InputError) << size;
  }
  write_file(folder, "t.idx", index.substr(0, 20));
  EXPECT_EQ(message_of([&] { open_indexed(folder / "t"); }),
            (folder / "t.idx") + ": 20 bytes, expected at least the 34 of a header");
  write_file(folder, "t.idx", index);
  write_file(folder, "t.bin", bin.substr(0, 7));
  EXPECT_EQ(
      message_of([&] { open_indexed(folder / "t"); }),
      (folder / "t.idx") + ": sequence 1 ends at byte 8, but " + (folder / "t.bin") + " has 7");
  std::filesystem::remove(folder / "t.bin");
  EXPECT_EQ(message_of([&] { open_indexed(folder / "t"); }),
            (folder / "t.bin") + ": cannot be read: No such file or directory");
  write_file(folder, "t.bin", "");
  test::write_indexed<std::uint16_t>(folder, "none", 8, {});
  EXPECT_EQ(message_of([&] { open_indexed(folder / "none"); }),
            (folder / "none.idx") + ": describes no token");
}

TEST(IndexedSource, IdsThatAreNoIdsAreRefused) {
  const TemporaryFolder folder;
  test::write_indexed<std::int32_t>(folder, "t", 4, {{1, -2}});
  EXPECT_EQ(message_of([&] { ids(*open_indexed(folder / "t"), 0, 2); }),
            (folder / "t.bin") + ": token 1 is -2, expected 0 or more and at most 2147483647");
  test::write_indexed<std::int64_t>(folder, "t", 5, {{1, std::int64_t{1} << 40}});
  EXPECT_EQ(
      message_of([&] { ids(*open_indexed(folder / "t"), 0, 2); }),
      (folder / "t.bin") + ": token 1 is 1099511627776, expected 0 or more and at most 2147483647");
}

// The definition: slide a window over all tokens and count the documents it touches.
TEST(TokenSource, MostDocumentsAgreesWithItsDefinition) {
  const TemporaryFolder folder;
  const std::vector<int> lengths = {3, 0, 1, 1, 7, 0, 0, 1, 2, 1, 5, 1};
  std::vector<std::vector<std::uint8_t>> documents;
  for (const int length : lengths) {
    documents.emplace_back(length, 1);
  }
  test::write_indexed(folder, "t", 1, documents);
  const auto source = open_indexed(folder / "t");
  for (std::int64_t window = 1; window <= source->tokens(); ++window) {
    std::int64_t most = 0;
    for (std::int64_t begin = 0; begin + window <= source->tokens(); ++begin) {
      std::int64_t touched = 0;
      for (std::int64_t d = 0; d < source->documents(); ++d) {
        const std::int64_t from = std::max(begin, source->document_begin(d));
        const std::int64_t to = std::min(begin + window, source->document_begin(d + 1));
        touched += from < to ? 1 : 0;
      }
      most = std::max(most, touched);
    }
    EXPECT_GE(source->most_documents(window), most) << window;
    EXPECT_LE(source->most_documents(window), most + 1) << window;  // a window past the end
  }
}

TEST(SyntheticSource, IsAFunctionOfSeedAndPosition) {
  for (const char* path : {"synthetic:uniform", "synthetic:markov", "synthetic:copy"}) {
    const SourceConfig config{.path = path, .document = 31, .tokens = 3100};
    const auto source = open_token_source(config, 50, 7), again = open_token_source(config, 50, 7);
    const auto other = open_token_source(config, 50, 8);
    EXPECT_EQ(source->tokens(), 3100);
    EXPECT_EQ(source->documents(), 100);
    const auto all = ids(*source, 0, 3100);
    EXPECT_EQ(ids(*again, 1000, 77),
              std::vector<std::int32_t>(all.begin() + 1000, all.begin() + 1077));
    EXPECT_NE(ids(*other, 0, 3100), all);
    EXPECT_EQ(*std::min_element(all.begin(), all.end()), 0);
    EXPECT_EQ(*std::max_element(all.begin(), all.end()), 49);
    for (std::size_t t = 0; t < 31 && std::string(path) == "synthetic:copy"; ++t) {
      EXPECT_EQ(all[310 + 16 + t % 15], all[310 + t % 15]);
    }
  }
}

// Of n = 199,200 steps a follower of probability p takes n p; six deviations sqrt(n p (1 - p)) are
// at most 1340 of them.
TEST(SyntheticSource, MarkovFollowersHaveTheirProbabilities) {
  const int vocabulary = 4001;  // few collisions between followers
  const SourceConfig config{.path = "synthetic:markov", .document = 250, .tokens = 200000};
  const auto source = open_token_source(config, vocabulary, 3);
  const auto all = ids(*source, 0, 200000);
  std::map<std::int32_t, std::map<std::int32_t, int>> counts;
  for (std::size_t t = 1; t < all.size(); ++t) {
    if (t % 250 != 0) {
      ++counts[all[t - 1]][all[t]];
    }
  }
  std::vector<std::int64_t> by_rank(4, 0);
  for (const auto& [id, followers] : counts) {
    EXPECT_LE(followers.size(), 4u);
    std::vector<int> sorted;
    for (const auto& [next, count] : followers) {
      sorted.push_back(count);
    }
    std::sort(sorted.rbegin(), sorted.rend());
    for (std::size_t rank = 0; rank < sorted.size(); ++rank) {
      by_rank[rank] += sorted[rank];
    }
  }
  const double steps = 199200;
  EXPECT_EQ(std::accumulate(by_rank.begin(), by_rank.end(), std::int64_t{0}), 199200);
  // Sorting by count favours the first ranks where an id is rare, so bounds are one-sided.
  EXPECT_GE(static_cast<double>(by_rank[0]), 0.5 * steps - 1340);
  EXPECT_LE(static_cast<double>(by_rank[3]), 0.125 * steps + 1340);
}

TEST(SyntheticSource, WrongNamesAndSizesAreRefused) {
  EXPECT_EQ(message_of([] { open_token_source({.path = "synthetic:noise"}, 4, 1); }),
            "synthetic:noise: expected synthetic:uniform | markov | copy");
  EXPECT_EQ(message_of([] {
              open_token_source({.path = "synthetic:copy", .document = 8, .tokens = 7}, 4, 1);
            }),
            "synthetic:copy: document = 8 and tokens = 7, expected 2 or more and at least one "
            "document");
}

}  // namespace
}  // namespace qnext
