// SPDX-License-Identifier: Apache-2.0
#include "io/text/byte_input.hpp"
#include "io/text/document.hpp"
#include "io/text/record_input.hpp"
#include "io/token_source.hpp"
#include "io/token_writer.hpp"
#include "tests/tokenizer_case.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace qnext {
namespace {

using test::bytes_of;
using test::message_of;
using test::TemporaryFolder;
using test::write_bytes;
using Ids = std::vector<int>;

template <std::size_t N>
std::string bytes(const char (&text)[N]) {
  return {text, N - 1};
}

// "first\nsecond\n", by gzip -n -9 and by zstd -19.
const std::string gzip = bytes(
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x4b\xcb\x2c\x2a\x2e\xe1\x2a\x4e\x4d\xce\xcf\x4b\xe1"
    "\x02\x00\x20\x51\x45\x08\x0d\x00\x00\x00");
const std::string zstd = bytes(
    "\x28\xb5\x2f\xfd\x04\x68\x69\x00\x00\x66\x69\x72\x73\x74\x0a\x73\x65\x63\x6f\x6e\x64\x0a\x61"
    "\xfc\xbd\xfe");
// "abc\n" 300000 times, by zstd -19.
const std::string large_zstd = bytes(
    "\x28\xb5\x2f\xfd\x04\x68\x64\x00\x00\x20\x61\x62\x63\x0a\x01\x00\xf9\xff\xf2\x4b\x04\x44\x00"
    "\x00\x00\x01\x00\xfd\xff\xf2\x0b\x04\x44\x00\x00\x00\x01\x00\xfd\xff\x39\x00\x02\x44\x00\x00"
    "\x00\x01\x00\xfd\xff\x39\x00\x02\x44\x00\x00\x00\x01\x00\xfd\xff\x39\x00\x02\x44\x00\x00\x00"
    "\x01\x00\xfd\xff\x39\x00\x02\x44\x00\x00\x00\x01\x00\xfd\xff\x39\x00\x02\x44\x00\x00\x00\x01"
    "\x00\xfd\xff\x39\x00\x02\x44\x00\x00\x00\x01\x00\xfd\xff\x39\x00\x02\x3d\x00\x00\x00\x01\x00"
    "\x7d\xcf\x0e\x80\x6c\x57\x23\x18");

std::string all_of(const std::string& path, std::size_t piece) {
  const auto input = ByteInput::open(path);
  std::string text, part(piece, '\0');
  for (std::size_t count = piece; count == piece;) {
    count = input->read(part.data(), piece);
    text.append(part, 0, count);
  }
  return text;
}

TEST(ByteInput, UnpacksWhatIsPacked) {
  const TemporaryFolder folder;
  const std::string path = folder / "text", text = "first\nsecond\n";
  for (const std::size_t piece : {1, 5, 100000}) {
    for (const std::string& packed : {text, gzip, zstd}) {
      write_bytes(path, packed);
      EXPECT_EQ(all_of(path, piece), text);
    }
    for (const std::string& packed : {gzip + gzip, zstd + zstd}) {
      write_bytes(path, packed);
      EXPECT_EQ(all_of(path, piece), text + text);
    }
    write_bytes(path, "");
    EXPECT_EQ(all_of(path, piece), "");
  }
  write_bytes(path, large_zstd);
  const std::string large = all_of(path, 70001);
  EXPECT_EQ(large.size(), 1'200'000u);
  EXPECT_EQ(large.substr(1'199'996), "abc\n");
}

TEST(ByteInput, DamageIsAnError) {
  const TemporaryFolder folder;
  const std::string path = folder / "text";
  const auto message = [&](const std::string& packed) {
    write_bytes(path, packed);
    return message_of([&] { all_of(path, 1000); });
  };
  for (std::size_t cut = 5; cut < gzip.size(); ++cut) {
    EXPECT_EQ(message(gzip.substr(0, cut)), path + ": is damaged: it ends within a gzip member");
  }
  for (std::size_t cut = 5; cut < zstd.size(); ++cut) {
    EXPECT_EQ(message(zstd.substr(0, cut)), path + ": is damaged: it ends within a zstd frame");
  }
  for (std::size_t at = 10; at < gzip.size(); ++at) {
    if (at == gzip.size() - 9) {
      continue;  // the last byte before the check has bits that nobody reads
    }
    std::string broken = gzip;
    broken[at] = static_cast<char>(broken[at] ^ 0x10);
    EXPECT_NE(message(broken), "no error") << at;
  }
  EXPECT_EQ(message_of([&] { ByteInput::open(folder / "none"); }),
            folder / "none" + ": cannot be opened: No such file or directory");
  EXPECT_EQ(message_of([&] { all_of(folder.path(), 10); }),
            folder.path() + ": cannot be read: Is a directory");
}

std::vector<std::string> records(const std::string& path, const std::string& separator) {
  RecordInput input(path, separator);
  std::vector<std::string> found;
  for (std::string record; input.next(record);) {
    found.push_back(fmt::format("{}:{}", input.line(), record));
  }
  return found;
}

TEST(RecordInput, CutsTextsAndLines) {
  using Records = std::vector<std::string>;
  const TemporaryFolder folder;
  const std::string text = folder / "a.txt", lines = folder / "a.jsonl.gz";
  write_bytes(text, "a\nb\n--\n--\nc--\r\n--\r\nd");
  EXPECT_EQ(records(text, "--"), (Records{"1:a\nb\n", "5:c--\r\n", "7:d"}));
  EXPECT_EQ(records(text, ""), (Records{"1:" + bytes_of(text)}));
  write_bytes(lines, "{1}\r\n\n \t\n{2}");
  EXPECT_EQ(records(lines, "--"), (Records{"1:{1}", "4:{2}"}));
  EXPECT_TRUE(RecordInput::is_jsonl("a.json.zst"));
  EXPECT_FALSE(RecordInput::is_jsonl("a.jsonl.txt"));
}

Document document(const std::string& record, bool json, std::optional<int> end = 266) {
  static const Tokenizer tokenizer = test::read_tokenizer(test::small_tokenizer_json());
  return DocumentEncoder(tokenizer, ChatStyle::instruct, end).encode(record, json, "f:3");
}

TEST(DocumentEncoder, KnowsThreeForms) {
  using Mask = std::vector<std::uint8_t>;
  for (const Document& d :
       {document("the and", false), document(R"({"text": "the and", "id": 7})", true)}) {
    EXPECT_EQ(d.ids, (Ids{257, ' ', 263, 266}));
    EXPECT_EQ(d.mask, (Mask{1, 1, 1, 1}));
  }
  EXPECT_EQ(document("a", false, std::nullopt).ids, Ids{'a'});
  // Each for itself: the t and the he are not joined.
  const Document pair = document(R"({"prompt": "t", "completion": "he"})", true);
  EXPECT_EQ(pair.ids, (Ids{'t', 264, 266}));
  EXPECT_EQ(pair.mask, (Mask{0, 1, 1}));
  const Document chat = document(
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})",
      true);
  EXPECT_EQ(chat.ids.back(), '\n');
  EXPECT_EQ(chat.mask.size(), chat.ids.size());
}

TEST(DocumentEncoder, NamesTheRecordThatItRefuses) {
  for (const auto& [record, message] :
       {std::pair<std::string, std::string>(
            "{}", "f:3: has neither text, nor messages, nor prompt and completion"),
        {R"({"text": 1})", "f:3: text = 1: is an integer, wanted is text"},
        {R"({"text": "a", "tools": [1]})", "f:3: tools: are not supported"},
        {R"({"prompt": "a"})", "f:3: has neither text"},
        {"[1]", "f:3: the record = [1]: is a list"},
        {"{", "f:3: JSON: byte 2: is not JSON"}}) {
    EXPECT_EQ(message_of([&] { document(record, true); }).find(message), 0u)
        << message_of([&] { document(record, true); });
  }
  EXPECT_EQ(message_of([] { document("a\xff", false); }), "f:3: the text is not UTF-8 at byte 1");
}

Document ids(const Ids& values, std::uint8_t learnt = 1) {
  return {values, std::vector<std::uint8_t>(values.size(), learnt)};
}

TEST(TokenWriter, WritesWhatTrainingReads) {
  for (const int vocabulary : {500, 70000}) {
    const TemporaryFolder folder;
    TokenWriter writer(folder / "new/data", vocabulary, "s");
    writer.add(ids({1, 2, 3}));
    writer.add(ids({}));
    writer.add(ids({4}));
    writer.add(ids({vocabulary - 1, 0}));
    writer.finish();
    const auto source = open_indexed(folder / "new/data");
    EXPECT_EQ(source->documents(), 3);
    EXPECT_EQ(source->tokens(), 6);
    EXPECT_EQ(source->document_begin(1), 3);
    EXPECT_EQ(source->document_begin(2), 4);
    std::vector<std::int32_t> read(6);
    source->read(0, 6, read.data());
    EXPECT_EQ(read, (std::vector<std::int32_t>{1, 2, 3, 4, vocabulary - 1, 0}));
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder / "new")) {
      files += entry.is_regular_file() ? 1 : 0;
    }
    EXPECT_EQ(files, 2u);  // no mask where all is learnt, and nothing is left over
  }
}

// What a writer that was killed left behind its last save is cut off.
TEST(TokenWriter, GoesOnBehindTheLastSave) {
  const TemporaryFolder folder;
  const auto whole = [&](const std::string& prefix) {
    return bytes_of(prefix + ".bin") + bytes_of(prefix + ".idx") + bytes_of(prefix + ".mask");
  };
  const auto first = [](TokenWriter& writer) {
    writer.add(ids({1, 2, 3}, 0));
    writer.add(ids({4}));
  };
  TokenWriter straight(folder / "straight", 500, "s");
  first(straight);
  straight.add(ids({5, 6}));
  straight.finish();
  EXPECT_EQ(bytes_of(folder / "straight.mask"), bytes("\0\0\0\1\1\1"));

  for (const char* const settings : {"s", "other"}) {
    {
      TokenWriter killed(folder / "killed", 500, "s");
      first(killed);
      killed.save(1, 7);
      killed.add(ids({9, 9, 9}));
    }
    write_bytes(folder / "killed.bin.part", bytes_of(folder / "killed.bin.part") + "torn");
    TokenWriter next(folder / "killed", 500, settings);
    const bool same = std::string(settings) == "s";
    EXPECT_EQ(next.resumed(), same);
    EXPECT_EQ(next.progress().file, same ? 1 : 0);
    EXPECT_EQ(next.progress().records, same ? 7 : 0);
    if (!same) {
      first(next);
    }
    next.add(ids({5, 6}));
    next.finish();
    EXPECT_EQ(whole(folder / "killed"), whole(folder / "straight"));
  }
}

TEST(TokenWriter, LetsNobodyElseWrite) {
  const TemporaryFolder folder;
  const std::string prefix = folder / "a";
  const auto other = [&] { TokenWriter(prefix, 500, "s"); };
  {
    TokenWriter writer(prefix, 500, "s");
    writer.add(ids({1, 2}));
    writer.save(0, 1);
    EXPECT_EQ(
        message_of(other),
        prefix + ".bin.part: another program writes it; wait for its end, or name other files");
    writer.finish();
    other();  // the names are free again
  }
  EXPECT_EQ(bytes_of(prefix + ".bin"), bytes("\1\0\2\0"));
}

TEST(TokenWriter, BeginsAnewWhereProgressIsDamaged) {
  const TemporaryFolder folder;
  const std::string good =
      R"({"settings": "s", "file": 0, "records": 1, "documents": 1, "tokens": 2, "learnt": 2})";
  for (const auto& [progress, resumed] :
       {std::pair<std::string, bool>(good, true),
        {"{", false},
        {"[]", false},
        {R"({"settings": "s"})", false},
        {R"({"settings": 1, "file": 0})", false},
        // More than the files hold.
        {R"({"settings": "s", "file": 0, "records": 1, "documents": 1, "tokens": 9, "learnt": 2})",
         false}}) {
    write_bytes(folder / "a.progress", progress);
    write_bytes(folder / "a.bin.part", bytes("\1\0\2\0"));
    write_bytes(folder / "a.idx.part", bytes("\2\0\0\0"));
    write_bytes(folder / "a.mask.part", bytes("\1\1"));
    EXPECT_EQ(TokenWriter(folder / "a", 500, "s").resumed(), resumed) << progress;
  }
}

TEST(TokenWriter, RefusesEmptyFilesAndFoldersThatCannotBe) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of([&] { TokenWriter(folder / "a", 500, "s").finish(); }),
            folder / "a" + ": the input holds no token");
  write_bytes(folder / "file", "x");
  EXPECT_NE(message_of([&] {
              TokenWriter(folder / "file/a", 500, "s");
            }).find("the folder cannot be made"),
            std::string::npos);
  std::filesystem::create_directory(folder / "b.idx.part");
  EXPECT_NE(message_of([&] {
              TokenWriter(folder / "b", 500, "s");
            }).find("b.idx.part: cannot be written: "),
            std::string::npos);
  std::filesystem::create_directory(folder / "c.progress.part");
  EXPECT_EQ(message_of([&] { TokenWriter(folder / "c", 500, "s").save(0, 0); }),
            folder / "c.progress.part" + ": cannot be written");
}

}  // namespace
}  // namespace qnext
