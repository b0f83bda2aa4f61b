// SPDX-License-Identifier: Apache-2.0
#include "io/json.hpp"
#include "io/safetensors.hpp"
#include "io/safetensors_writer.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <filesystem>

namespace qnext {
namespace {

using test::message_of;
using test::TemporaryFolder;
using Entries = std::vector<SafetensorsWriter::Entry>;

std::vector<std::byte> counted(std::int64_t count, int first) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(first + static_cast<int>(i));
  }
  return bytes;
}

const Entries three = {{"a", NumberFormat::bf16, {3}},
                       {"b\"quoted\"", NumberFormat::f32, {2, 2}},
                       {"c", NumberFormat::f16, {5, 1}}};

/// Each tensor counts from its own number on, in two pieces of which the second comes first.
void fill(SafetensorsWriter& writer, const Entries& entries) {
  for (std::size_t i = entries.size(); i-- > 0;) {
    const auto bytes = counted(entries[i].bytes(), 16 * static_cast<int>(i));
    const std::span<const std::byte> all(bytes);
    writer.write(entries[i].name, 2, all.subspan(2));
    writer.write(entries[i].name, 0, all.first(2));
  }
  writer.finish();
}

void expect_counted(const SafetensorsFolder& folder, const Entries& entries) {
  ASSERT_EQ(folder.names().size(), entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const SafeTensor* const tensor = folder.find(entries[i].name);
    ASSERT_NE(tensor, nullptr) << entries[i].name;
    EXPECT_EQ(tensor->type, name_of(entries[i].format));
    EXPECT_EQ(tensor->extents, entries[i].extents);
    EXPECT_EQ(tensor->begin % bytes_of(entries[i].format), 0) << entries[i].name;
    const auto wanted = counted(entries[i].bytes(), 16 * static_cast<int>(i));
    EXPECT_TRUE(
        std::equal(tensor->bytes.begin(), tensor->bytes.end(), wanted.begin(), wanted.end()));
  }
}

TEST(SafetensorsWriter, WritesOneFileThatTheReaderReads) {
  const TemporaryFolder folder;
  SafetensorsWriter writer(folder.path(), three, 1000);
  fill(writer, three);
  EXPECT_EQ(writer.bytes(), 6 + 16 + 10);
  EXPECT_EQ(writer.files(), 1);
  EXPECT_FALSE(std::filesystem::exists(folder / "model.safetensors.index.json"));
  const SafetensorsFile file(folder / "model.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  expect_counted(SafetensorsFolder(folder.path()), three);
}

TEST(SafetensorsWriter, CutsIntoShardsAndIndexesThem) {
  const TemporaryFolder folder;
  SafetensorsWriter writer(folder.path(), three, 20);
  fill(writer, three);
  EXPECT_EQ(writer.files(), 3);
  const Json index = Json::read(folder / "model.safetensors.index.json");
  EXPECT_EQ(index.find("metadata")->find("total_size")->integer("size"), 32);
  EXPECT_EQ(index.find("weight_map")->find("c")->text("c"), "model-00003-of-00003.safetensors");
  expect_counted(SafetensorsFolder(folder.path()), three);
}

// 22 bytes hold the first two; a tensor that is larger than a file may be has one for itself.
TEST(SafetensorsWriter, FillsAShardUpToItsBytes) {
  for (const auto& [most, files] : {std::pair{22, 2}, std::pair{21, 3}, std::pair{1, 3}}) {
    const TemporaryFolder folder;
    SafetensorsWriter writer(folder.path(), three, most);
    fill(writer, three);
    EXPECT_EQ(writer.files(), files) << most;
  }
}

TEST(SafetensorsWriter, RefusesWhatDoesNotFit) {
  const TemporaryFolder folder;
  SafetensorsWriter writer(folder.path(), three, 1000);
  const auto bytes = counted(7, 0);
  EXPECT_NE(message_of([&] { writer.write("a", 0, bytes); }).find("a: bytes outside of it are"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              writer.finish();
            }).find("0 bytes of the tensors are written, wanted are 32"),
            std::string::npos);
}

TEST(SafetensorsWriter, AsksForRoomFirst) {
  const TemporaryFolder folder;
  const Entries large = {{"a", NumberFormat::f32, {std::int64_t{1} << 58}}};
  EXPECT_NE(message_of([&] {
              SafetensorsWriter(folder.path(), large, 1000);
            }).find(": the tensors have 1152921504606846976 bytes, the disk room for"),
            std::string::npos);
}

TEST(SafetensorsWriter, SaysWhichFileCannotBeWritten) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "model.safetensors");
  EXPECT_EQ(message_of([&] { SafetensorsWriter(folder.path(), three, 1000); }),
            folder / "model.safetensors" + ": cannot be opened: Is a directory");
}

}  // namespace
}  // namespace qnext
