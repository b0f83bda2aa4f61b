// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint.hpp"
#include "io/checkpoint_block.hpp"
#include "io/hdf5_file.hpp"
#include "tests/checkpoint_case.hpp"
#include "tests/file_size_limit.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::bytes_of;
using test::CheckpointModel;
using test::content_at;
using test::message_of;
using test::names_in;
using test::TemporaryFolder;
using test::write_bytes;

template <class Storage>
class CheckpointOf : public testing::Test {
 protected:
  TemporaryFolder folder;
};
using Storages = testing::Types<float, double, bf16>;
TYPED_TEST_SUITE(CheckpointOf, Storages);

TYPED_TEST(CheckpointOf, GivesBackEveryBit) {
  CheckpointModel<TypeParam> written, read;
  written.fill(1);
  read.fill(2);
  const std::string path = this->folder / "x.h5";
  write_checkpoint(path, content_at(12), written.table, written.families);
  read_checkpoint_tensors(path, read.table, read.families);
  EXPECT_EQ(read.bytes(), written.bytes());
  verify_checkpoint(path);

  const auto content = read_checkpoint_content(path);
  EXPECT_EQ(content.step, 12);
  EXPECT_EQ(content.given_deck, content_at(12).given_deck);
  EXPECT_EQ(content.resolved_deck, content_at(12).resolved_deck);
  ASSERT_EQ(content.records.size(), content_at(12).records.size());
  for (const auto& [name, record] : content_at(12).records) {
    EXPECT_EQ(content.record(name).values(), record.values()) << name;
  }
}

TYPED_TEST(CheckpointOf, HasTheSameBytesEachTime) {
  CheckpointModel<TypeParam> model;
  model.fill(1);
  write_checkpoint(this->folder / "one.h5", content_at(3), model.table, model.families);
  write_checkpoint(this->folder / "two.h5", content_at(3), model.table, model.families);
  EXPECT_EQ(bytes_of(this->folder / "one.h5"), bytes_of(this->folder / "two.h5"));
}

// What another rank would hold: the boxes of its shard, here the second half of the rows of the
// embedding, an expert, and two of the three boxes of the convolution, cut.
TYPED_TEST(CheckpointOf, IsReadByBoxes) {
  CheckpointModel<TypeParam> whole;
  whole.fill(1);
  const std::string path = this->folder / "x.h5";
  write_checkpoint(path, content_at(3), whole.table, {});

  ParameterTable table;
  Weight<TypeParam, 2> embedding;
  Weight<Accum<TypeParam>, 1> norm;
  Weight<TypeParam, 3> experts, convolution;
  Parameter rows{.name = "model.embed_tokens.weight", .shard = Shard::whole({37, 5})};
  rows.shard.boxes = {{{18, 1}, {19, 3, 1, 1}}};
  Parameter one{.name = "model.layers.0.mlp.experts.down_proj", .shard = Shard::whole({3, 5, 7})};
  one.shard.boxes = {{{1}, {1, 5, 7, 1}}};
  Parameter channels{.name = "model.layers.0.linear_attn.conv1d.weight",
                     .shard = Shard::whole({12, 1, 4})};
  channels.shard.boxes = {{{1}, {1, 1, 4, 1}}, {{9}, {3, 1, 4, 1}}};
  table.add(rows, embedding);
  table.add({.name = "model.norm.weight", .shard = Shard::whole({5})}, norm);
  table.add(one, experts);
  table.add(channels, convolution);
  table.lay_out();
  read_checkpoint_tensors(path, table, {});

  const auto same = [](const auto& a, const auto& b) {
    return std::memcmp(&a, &b, sizeof(a)) == 0;
  };
  for (int r = 0; r < 19; ++r) {
    for (int c = 0; c < 3; ++c) {
      ASSERT_TRUE(same(embedding.value(r, c), whole.embedding.value(18 + r, 1 + c)));
    }
  }
  EXPECT_TRUE(same(experts.value(0, 4, 6), whole.experts.value(1, 4, 6)));
  EXPECT_TRUE(same(convolution.value(0, 0, 3), whole.convolution.value(1, 0, 3)));
  EXPECT_TRUE(same(convolution.value(3, 0, 1), whole.convolution.value(11, 0, 1)));
  EXPECT_TRUE(same(norm.value(4), whole.norm.value(4)));
}

class Checkpoint : public testing::Test {
 protected:
  Checkpoint() {
    model.fill(1);
    write_checkpoint(path, content_at(5), model.table, model.families);
  }

  TemporaryFolder folder;
  CheckpointModel<float> model;
  const std::string path = folder / "x.h5";
};

// One bit of each of many bytes in every part of the file: always refused, and never by HDF5.
TEST_F(Checkpoint, RefusesADamagedByteAnywhere) {
  const std::string good = bytes_of(path);
  const std::string damaged = folder / "damaged.h5";
  for (std::size_t place = 0; place < good.size(); place += place < 128 ? 1 : 67) {
    std::string bytes = good;
    bytes[place] ^= 4;
    write_bytes(damaged, bytes);
    const std::string message = message_of([&] { verify_checkpoint(damaged); });
    const bool told =
        message.find(": is damaged: ") != std::string::npos ||
        (place < 16 && message.find("is not a checkpoint") != std::string::npos) ||
        (place >= 16 && place < 24 && message.find("has the format ") != std::string::npos);
    ASSERT_TRUE(told) << "byte " << place << ": " << message;
  }
}

TEST_F(Checkpoint, NamesTheDamagedTensor) {
  const std::string dataset = "/optimizer/first_moment/model.norm.weight";
  const std::int64_t place = Hdf5File(path).place_of(dataset);
  std::string bytes = bytes_of(path);
  bytes[place + 7] ^= 1;
  write_bytes(path, bytes);
  const auto expect = [&](const std::string& message) {
    EXPECT_EQ(message.find(path + ": " + dataset + ": is damaged: its hash is "), 0u) << message;
  };
  expect(message_of([&] { verify_checkpoint(path); }));
  expect(message_of([&] { read_checkpoint_tensors(path, model.table, model.families); }));
  try {
    verify_checkpoint(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::bad_number);
  }
  EXPECT_EQ(read_checkpoint_content(path).step, 5);  // the rest is whole
}

TEST_F(Checkpoint, RefusesATruncatedAndALongerFile) {
  const std::string good = bytes_of(path);
  const std::string wanted = " bytes, wanted are " + std::to_string(good.size());
  for (const std::size_t length : {good.size() - 1, good.size() / 2, std::size_t{600}}) {
    write_bytes(path, good.substr(0, length));
    EXPECT_EQ(message_of([&] { read_checkpoint_content(path); }),
              path + ": is damaged: it has " + std::to_string(length) + wanted);
  }
  write_bytes(path, good + "x");
  EXPECT_EQ(message_of([&] { read_checkpoint_content(path); }),
            path + ": is damaged: it has " + std::to_string(good.size() + 1) + wanted);
  write_bytes(path, good.substr(0, 100));
  EXPECT_EQ(message_of([&] { read_checkpoint_content(path); }),
            path + ": is damaged: it has 100 bytes, less than the shortest");
}

TEST_F(Checkpoint, RefusesAForeignFile) {
  const std::string foreign =
      ": is not a checkpoint of qnext: it does not start with \"qnext checkpoint\"";
  for (const std::string& bytes : {std::string(), std::string("hello"), std::string(4096, 'x')}) {
    write_bytes(path, bytes);
    EXPECT_EQ(message_of([&] { read_checkpoint_content(path); }), path + foreign);
  }
  {
    auto file = Hdf5File::create(path);
    file.write_text("/text", "an HDF5 file of something else");
    file.close();
  }
  EXPECT_EQ(message_of([&] { read_checkpoint_content(path); }), path + foreign);
  EXPECT_EQ(message_of([&] { read_checkpoint_content(folder / "none.h5"); }),
            folder / "none.h5" + ": no such file");
}

TEST_F(Checkpoint, RefusesAnotherFormat) {
  std::string bytes = bytes_of(path);
  bytes[16] = 2;
  write_bytes(path, bytes);
  EXPECT_EQ(message_of([&] { read_checkpoint_content(path); }),
            path + ": has the format 2, wanted is 1");
}

TEST_F(Checkpoint, RefusesABlockOfAnotherLength) {
  std::string bytes = bytes_of(path);
  bytes[25] ^= 1;  // 256 bytes more or less, no power of two
  write_bytes(path, bytes);
  EXPECT_NE(message_of([&] {
              read_checkpoint_content(path);
            }).find(path + ": is damaged: its first block says it has "),
            std::string::npos);
}

// A block that lies but has a right hash: what it says about places is checked on its own.
TEST_F(Checkpoint, RefusesABlockThatPlacesTensorsOutside) {
  CheckpointBlock block = check_checkpoint_block(path);
  block.tensors.back().bytes += std::int64_t{1} << 40;
  EXPECT_NE(message_of([&] {
              seal_checkpoint(path, block);
              check_checkpoint_block(path);
            }).find(" its first block places a tensor of "),
            std::string::npos);
}

TEST_F(Checkpoint, NamesTypesAndShapesThatDiffer) {
  CheckpointModel<double> other_type;
  EXPECT_EQ(message_of([&] { read_checkpoint_tensors(path, other_type.table, {}); }),
            path +
                ": /parameters/model.embed_tokens.weight: is float32 (37, 5), wanted is "
                "float64 (37, 5)");
  CheckpointModel<float> other_shape(38);
  EXPECT_EQ(message_of([&] { read_checkpoint_tensors(path, other_shape.table, {}); }),
            path +
                ": /parameters/model.embed_tokens.weight: is float32 (37, 5), wanted is "
                "float32 (38, 5)");
}

TEST_F(Checkpoint, ListsMissingAndUnknownTensors) {
  CheckpointModel<float> fewer(37, false);
  EXPECT_EQ(message_of([&] { read_checkpoint_tensors(path, fewer.table, {}); }),
            path +
                ": /parameters: does not hold the tensors of this model: unknown 1 "
                "(model.layers.0.mlp.experts.down_proj)");
  // Unless it is said that they are not wanted.
  EXPECT_NO_THROW(read_checkpoint_tensors(path, fewer.table, {}, {}, "model.layers.0.mlp."));
  write_checkpoint(path, content_at(5), fewer.table, {});
  EXPECT_EQ(message_of([&] { read_checkpoint_tensors(path, model.table, {}); }),
            path +
                ": /parameters: does not hold the tensors of this model: missing 1 "
                "(model.layers.0.mlp.experts.down_proj)");
  EXPECT_EQ(message_of([&] { read_checkpoint_tensors(path, fewer.table, fewer.families); }),
            path +
                ": /optimizer/first_moment: does not hold the tensors of this model: missing 3 "
                "(model.embed_tokens.weight, model.layers.0.linear_attn.conv1d.weight, "
                "model.norm.weight)");
}

TEST_F(Checkpoint, NamesValuesThatAreMissing) {
  const auto content = read_checkpoint_content(path);
  EXPECT_EQ(message_of([&] { content.record("random"); }), "the checkpoint has no record random");
  const Record& progress = content.record("progress");
  EXPECT_EQ(message_of([&] { progress.get<double>("loss"); }),
            "progress.loss: the checkpoint has no such value");
  EXPECT_EQ(message_of([&] { progress.get<double>("tokens"); }),
            "progress.tokens: the checkpoint holds it as another type");
}

TEST(Record, SaysWhatDiffers) {
  Record there("program"), here("program");
  there.set("threads", std::int64_t{2});
  here.set("threads", std::int64_t{4});
  there.set("commit", std::string("abc"));
  here.set("commit", std::string("abc"));
  there.set("order", std::vector<std::int64_t>{1, 2});
  here.set("backend", std::string("openmp"));
  EXPECT_EQ(
      there.differences(here),
      (std::vector<std::string>{"order: [1, 2] there, absent here", "threads: 2 there, 4 here",
                                "backend: absent there, openmp here"}));
}

using Names = std::vector<std::string>;

// The disk can be full at any place: in the metadata, in the tensors.
TEST_F(Checkpoint, AFullDiskCostsNoGoodCheckpoint) {
  const auto length = static_cast<std::int64_t>(bytes_of(path).size());
  CheckpointModel<float> changed;
  changed.fill(2);
  const std::string good = bytes_of(path);
  for (std::int64_t room = 1024; room < length; room += length / 23) {
    std::string message;
    {
      const test::FileSizeLimit limit(room);
      message = message_of(
          [&] { write_checkpoint(path, content_at(6), changed.table, changed.families); });
    }
    EXPECT_NE(message.find("failed: File too large"), std::string::npos) << room << message;
    EXPECT_EQ(message.find(path + ".part: "), 0u) << message;
    EXPECT_EQ(names_in(folder.path()), Names{"x.h5"});
    EXPECT_EQ(bytes_of(path), good);
  }
  write_checkpoint(path, content_at(6), changed.table, changed.families);
  EXPECT_EQ(read_checkpoint_content(path).step, 6);
}

TEST(CheckpointWrite, NamesAFolderThatIsNotThere) {
  const TemporaryFolder folder;
  CheckpointModel<float> model;
  EXPECT_EQ(
      message_of([&] { write_checkpoint(folder / "none/x.h5", content_at(1), model.table, {}); }),
      folder / "none" + ": has no known room: No such file or directory");
}

// The file system of processes has room for nothing.
TEST(CheckpointWrite, NamesTheRoomThatIsMissing) {
  CheckpointModel<float> model;
  const std::string message =
      message_of([&] { write_checkpoint("/proc/x.h5", content_at(1), model.table, {}); });
  EXPECT_EQ(message.find("/proc/x.h5.part: the disk has room for 0 bytes, wanted are "), 0u)
      << message;
}

TEST(CheckpointWrite, WantsABufferForEachGroup) {
  const TemporaryFolder folder;
  CheckpointModel<float> model;
  auto families = model.families;
  families.front().buffers.emplace_back();
  EXPECT_NE(message_of([&] {
              write_checkpoint(folder / "x.h5", content_at(1), model.table, families);
            }).find("optimizer/first_moment: has buffers for 2 groups, wanted are 1"),
            std::string::npos);
}

// Half of a tensor, and one that other ranks are said to own.
TEST(CheckpointWrite, WantsEachElementOnce) {
  const TemporaryFolder folder;
  const auto message = [&](const Parameter& row) {
    ParameterTable table;
    Weight<float, 2> weight;
    table.add(row, weight);
    table.lay_out();
    return message_of([&] { write_checkpoint(folder / "x.h5", content_at(1), table, {}); });
  };
  Parameter half{.name = "w", .shard = Shard::whole({4, 2})};
  half.shard.boxes = {{{0}, {2, 2, 1, 1}}};
  EXPECT_NE(message(half).find("/parameters/w: the ranks write 4 of 8 elements"),
            std::string::npos);
  EXPECT_NE(message({.name = "w", .shard = Shard::whole({4, 2}), .owner = false})
                .find("/parameters/w: the ranks write 0 of 8 elements"),
            std::string::npos);
  EXPECT_EQ(names_in(folder.path()), Names{});
}

}  // namespace
}  // namespace qnext
