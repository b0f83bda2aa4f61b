// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint_block.hpp"
#include "io/checkpoint_stream.hpp"
#include "io/hdf5_file.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>
#include <hdf5.h>

#include <filesystem>
#include <map>

namespace qnext {
namespace {

using test::bytes_of;
using test::message_of;
using test::TemporaryFolder;
using test::write_bytes;

/// Rows whose order is not that of their names, with a tied head.
struct Rows {
  explicit Rows(bool laid_out, int width = 5) {
    add({.name = "model.norm.weight", .shard = Shard::whole({width})}, norm);
    add({.name = "model.experts", .shard = Shard::whole({3, 5, 7})}, experts);
    add({.name = "embedding", .shard = Shard::whole({4, 5})}, embedding);
    Parameter tied{.name = "head", .shard = Shard::whole({4, 5})};
    tied.alias_of = "embedding";
    add(tied, head);
    if (laid_out) {
      table.lay_out(false);
    }
  }
  template <class Weight>
  void add(const Parameter& row, Weight& weight) {
    table.add(row, weight);
  }

  ParameterTable table;
  Weight<float, 1> norm;
  Weight<bf16, 3> experts;
  Weight<bf16, 2> embedding, head;
};

std::vector<std::byte> content_of(const Parameter& row) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(row.elements() * size_of(row.type)));
  unsigned word = static_cast<unsigned>(row.name.size());
  for (std::byte& byte : bytes) {
    word = word * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(word >> 24);
  }
  return bytes;
}

/// In pieces of three bytes, which end in the middle of a number.
void give(const Parameter& row, const Sink& sink) {
  const auto bytes = content_of(row);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    sink({bytes.data() + i, std::min<std::size_t>(3, bytes.size() - i)});
  }
}

CheckpointContent some_content() {
  CheckpointContent content;
  content.step = 7;
  content.given_deck = content.resolved_deck = "run: {}\n";
  content.record("hugging_face").set("updates", std::int64_t{3});
  return content;
}

TEST(CheckpointStream, WritesTheBytesOfACheckpointOfAModel) {
  const TemporaryFolder folder;
  const Rows streamed(false), model(true);
  for (const Parameter& row : model.table.rows()) {
    if (row.alias_of.empty()) {
      const auto bytes = content_of(row);
      const auto& group = model.table.groups()[row.group];
      const HostTensor<const std::byte, 1> from(bytes.data(), bytes.size());
      const Tensor<std::byte, 1> to(group.values.data() + row.begin * size_of(row.type),
                                    bytes.size());
      Kokkos::deep_copy(to, from);
    }
  }
  write_checkpoint(folder / "model.h5", some_content(), model.table, {});
  write_checkpoint_stream(folder / "stream.h5", some_content(), streamed.table, give);
  EXPECT_EQ(bytes_of(folder / "model.h5"), bytes_of(folder / "stream.h5"));
  EXPECT_FALSE(std::filesystem::exists(folder / "stream.h5.part"));
  verify_checkpoint(folder / "stream.h5");
}

TEST(CheckpointStream, ReadsWhatWasWritten) {
  const TemporaryFolder folder;
  const Rows rows(false);
  write_checkpoint_stream(folder / "a.h5", some_content(), rows.table, give);
  std::map<std::string, std::vector<std::byte>> found;
  read_checkpoint_stream(
      folder / "a.h5", rows.table,
      [&](const Parameter& row, std::int64_t begin, std::span<const std::byte> bytes) {
        auto& all = found[row.name];
        EXPECT_EQ(begin, static_cast<std::int64_t>(all.size()));
        all.insert(all.end(), bytes.begin(), bytes.end());
      });
  ASSERT_EQ(found.size(), 3u);
  for (const auto& [name, bytes] : found) {
    EXPECT_EQ(bytes, content_of(*rows.table.find(name)));
  }
  const auto listed = list_checkpoint_tensors(folder / "a.h5");
  ASSERT_EQ(listed.size(), 3u);
  EXPECT_EQ(listed[0].name, "parameters/embedding");
  EXPECT_EQ(listed[0].extents, (std::vector<std::int64_t>{4, 5}));
  EXPECT_EQ(listed[1].type, ElementType::bf16);
}

TEST(CheckpointStream, FindsADamagedNumberAndAnotherShape) {
  const TemporaryFolder folder;
  const Rows rows(false), wider(false, 6);
  const auto ignore = [](const Parameter&, std::int64_t, std::span<const std::byte>) {};
  write_checkpoint_stream(folder / "a.h5", some_content(), rows.table, give);
  EXPECT_NE(message_of([&] {
              read_checkpoint_stream(folder / "a.h5", wider.table, ignore);
            }).find("/parameters/model.norm.weight: is float32 (5), wanted is float32 (6)"),
            std::string::npos);
  std::string bytes = bytes_of(folder / "a.h5");
  bytes[Hdf5File(folder / "a.h5").place_of("/parameters/model.experts") + 9] ^= 1;
  write_bytes(folder / "b.h5", bytes);
  EXPECT_NE(message_of([&] {
              read_checkpoint_stream(folder / "b.h5", rows.table, ignore);
            }).find("/parameters/model.experts: is damaged: its hash is"),
            std::string::npos);
}

// A dataset in chunks is not one run of bytes. Nothing of ours makes one.
TEST(CheckpointStream, WantsElementsInOnePlace) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  ParameterTable table;
  Weight<float, 1> norm;
  table.add({.name = "norm", .shard = Shard::whole({4})}, norm);
  {
    auto file = Hdf5File::create(path, 512);
    file.create_group("/parameters");
    file.close();
    const hsize_t four = 4;
    const hid_t raw = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(creation, 1, &four);
    const hid_t space = H5Screate_simple(1, &four, nullptr);
    H5Dclose(H5Dcreate2(raw, "/parameters/norm", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, creation,
                        H5P_DEFAULT));
    H5Sclose(space);
    H5Pclose(creation);
    H5Fclose(raw);
  }
  seal_checkpoint(path, {});
  EXPECT_EQ(message_of([&] {
              read_checkpoint_stream(
                  path, table, [](const Parameter&, std::int64_t, std::span<const std::byte>) {});
            }),
            path + ": /parameters/norm: its elements have no place");
}

TEST(CheckpointStream, FindsAGroupInsideOfItself) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.h5";
  {
    auto file = Hdf5File::create(path, 512);
    file.create_group("/records/a");
    file.close();
    const hid_t raw = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    H5Lcreate_hard(raw, "/records", raw, "/records/a/again", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(raw);
  }
  seal_checkpoint(path, {});
  EXPECT_EQ(message_of([&] { verify_checkpoint(path); }),
            path + ": /records/a/again: the group is inside of itself");
}

TEST(CheckpointStream, LeavesNothingBehindAFailure) {
  const TemporaryFolder folder;
  const Rows rows(false);
  const auto write = [&](const Source& source) {
    return message_of(
        [&] { write_checkpoint_stream(folder / "a.h5", some_content(), rows.table, source); });
  };
  EXPECT_NE(write([](const Parameter& row, const Sink& sink) {
              give(row, sink);
              sink(content_of(row));
            }).find("is given too many bytes"),
            std::string::npos);
  EXPECT_NE(write([](const Parameter&, const Sink&) {
            }).find("/parameters/embedding: is given 0 of its 40 bytes"),
            std::string::npos);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace qnext
