// SPDX-License-Identifier: Apache-2.0
#include "io/data_stream.hpp"
#include "io/text/document.hpp"
#include "io/text/record_input.hpp"
#include "io/token_writer.hpp"
#include "tests/token_files.hpp"
#include "tests/tokenizer_case.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace qnext {
namespace {

using test::message_of;
using test::TemporaryFolder;
using test::write_bytes;
using Ids = std::vector<std::int32_t>;

const std::string records =
    R"({"prompt": "the ", "completion": "and"})"
    "\n"
    R"({"text": "thing"})"
    "\n"
    R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "he"}]})"
    "\n";

std::string tokenizer_in(const TemporaryFolder& folder) {
  write_bytes(folder / "tokenizer.json", test::small_tokenizer_json().dump());
  return folder / "tokenizer.json";
}

StreamConfig stream_of(const SourceConfig& source, int sequence, bool pack) {
  return {
      .sources = {source}, .sequence = sequence, .vocabulary = 300, .pack = pack, .shuffle = false};
}

// A text with a tokenizer, and the token files of the same records, give the same sequences.
TEST(LearntTokens, AreTheOnlyLabels) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.jsonl", tokenizer = tokenizer_in(folder);
  write_bytes(path, records);
  DocumentEncoder encoder(Tokenizer::read(tokenizer), ChatStyle::instruct, 266);
  TokenWriter writer(folder / "a", 269, "s");
  RecordInput input(path, "");
  std::vector<std::int32_t> ids, learnt;
  std::vector<bool> first;  // of a document
  for (std::string record; input.next(record);) {
    const Document document = encoder.encode(record, true, "x");
    writer.add(document);
    for (std::size_t i = 0; i < document.ids.size(); ++i) {
      ids.push_back(document.ids[i]);
      learnt.push_back(document.mask[i]);
      first.push_back(i == 0);
    }
  }
  writer.finish();
  for (const SourceConfig& source : {SourceConfig{.path = folder / "a.bin"},
                                     SourceConfig{.path = path, .tokenizer = tokenizer}}) {
    const int sequence = static_cast<int>(ids.size()) - 1;
    const TokenStream stream(stream_of(source, sequence, true));
    const TokenBatch batch = stream.batch(stream.start(), 0, 1);
    EXPECT_EQ(batch.tokens, Ids(ids.begin(), ids.end() - 1));
    std::int64_t count = 0;
    for (int i = 0; i < sequence; ++i) {
      const bool label = learnt[i + 1] != 0 && !first[i + 1];
      EXPECT_EQ(batch.labels[i], label ? ids[i + 1] : -1) << i;
      count += label ? 1 : 0;
    }
    EXPECT_EQ(batch.label_count, count);

    // The first document alone: the prompt's two tokens, "and" and the end, of which two are
    // labels.
    const TokenStream apart(stream_of(source, 6, false));
    const TokenBatch one = apart.batch(apart.start(), 0, 1);
    EXPECT_EQ(one.tokens, (Ids{257, ' ', 263, 266, 0, 0}));
    EXPECT_EQ(one.labels, (Ids{-1, 263, 266, -1, -1, -1}));
    EXPECT_EQ(one.label_count, 2);
  }
}

TEST(LearntTokens, AreAllWhereThereIsNoMask) {
  const TemporaryFolder folder;
  const std::string tokenizer = tokenizer_in(folder);
  write_bytes(folder / "a.txt", "the\n--\nthing\n");
  const auto source = open_token_source(
      {.path = folder / "a.txt", .separator = "--", .tokenizer = tokenizer}, 269, 1);
  EXPECT_FALSE(source->has_given());
  EXPECT_EQ(source->documents(), 2);
  Ids ids(static_cast<std::size_t>(source->tokens()));
  source->read(0, source->tokens(), ids.data());
  EXPECT_EQ(ids, (Ids{257, '\n', 266, 256, 260, '\n', 266}));
  std::vector<std::uint8_t> learnt(2, 7);
  source->read_learnt(0, 2, learnt.data());
  EXPECT_EQ(learnt, (std::vector<std::uint8_t>{1, 1}));
  test::write_indexed<std::uint16_t>(folder, "b", 8, {{1, 2, 3}});
  const auto indexed = open_indexed(folder / "b");
  EXPECT_FALSE(indexed->has_given());
  learnt.assign(2, 7);
  indexed->read_learnt(0, 2, learnt.data());
  EXPECT_EQ(learnt, (std::vector<std::uint8_t>{1, 1}));
}

TEST(LearntTokens, RefuseMasksAndTextsThatCannotBe) {
  const TemporaryFolder folder;
  const std::string tokenizer = tokenizer_in(folder);
  test::write_indexed<std::uint16_t>(folder, "b", 8, {{1, 2, 3}});
  write_bytes(folder / "b.mask", "12");
  EXPECT_EQ(message_of([&] { open_indexed(folder / "b"); }),
            folder / "b.mask" + ": has 2 bytes, expected one for each of 3 tokens");
  write_bytes(folder / "a.txt", "");
  EXPECT_EQ(message_of([&] { open_tokenized(folder / "a.txt", "", tokenizer); }),
            folder / "a.txt" + ": holds no text to make tokens of");
  write_bytes(folder / "a.txt", "a");
  EXPECT_NE(message_of([&] {
              open_tokenized(folder / "a.txt", "", folder / "none");
            }).find("none: cannot be read"),
            std::string::npos);
}

}  // namespace
}  // namespace qnext
