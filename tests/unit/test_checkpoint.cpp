// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint.hpp"
#include "io/checkpoint_block.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/hdf5_file.hpp"
#include "tests/file_size_limit.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <type_traits>

namespace qnext {
namespace {

using test::bytes_of;
using test::message_of;
using test::TemporaryFolder;
using test::write_bytes;

/// A table as layers fill it: matrices in Storage, a norm in Accum<Storage>, experts, channels in
/// three boxes, a tied head; and an optimizer's buffers beside it.
template <class Storage>
struct Model {
  using Real = Accum<Storage>;

  explicit Model(int rows = 37, bool with_expert = true) {
    const auto add = [&](auto& weight, const std::string& name,
                         const std::vector<std::int64_t>& extents) {
      Parameter parameter{.name = name, .shard = Shard::whole(extents)};
      table.add(parameter, weight);
    };
    add(embedding, "model.embed_tokens.weight", {rows, 5});
    add(norm, "model.norm.weight", {5});
    if (with_expert) {
      add(experts, "model.layers.0.mlp.experts.down_proj", {3, 5, 7});
    }
    Parameter channels{.name = "model.layers.0.linear_attn.conv1d.weight",
                       .shard = Shard::whole({12, 1, 4})};
    channels.shard.boxes = {{{0}, {2, 1, 4, 1}}, {{2}, {4, 1, 4, 1}}, {{6}, {6, 1, 4, 1}}};
    table.add(channels, convolution);
    Parameter tied{.name = "lm_head.weight", .shard = Shard::whole({rows, 5})};
    tied.alias_of = "model.embed_tokens.weight";
    table.add(tied, head);
    table.lay_out();
    families = {family("optimizer/first_moment", false), family("optimizer/second_moment", false),
                family("masters", true)};
  }

  TensorFamily family(const std::string& name, bool only_bf16) const {
    TensorFamily result{name, {}};
    for (const auto& group : table.groups()) {
      const DataType type = accum_of(group.type);
      const bool has = !only_bf16 || group.type == DataType::bf16;
      result.buffers.push_back(
          {type, Tensor<std::byte, 1>("family", has ? group.elements * size_of(type) : 0)});
    }
    return result;
  }

  std::vector<TensorFamily> all_families() const {
    auto all = families;
    all.push_back(parameter_family(table));
    return all;
  }

  /// Every byte of every buffer, padding included.
  void fill(int seed) {
    unsigned word = 12345u + seed;
    for (const auto& family : all_families()) {
      for (const auto& buffer : family.buffers) {
        const auto host = Kokkos::create_mirror_view(buffer.memory);
        for (std::size_t i = 0; i < host.extent(0); ++i) {
          word = word * 1664525u + 1013904223u;
          host(i) = static_cast<std::byte>(word >> 24);
        }
        Kokkos::deep_copy(buffer.memory, host);
      }
    }
  }

  /// The bytes of all tensors, without padding.
  std::string bytes() const {
    std::string text;
    for (const auto& family : all_families()) {
      for (const Parameter& row : table.rows()) {
        const auto& buffer = family.buffers[row.group];
        if (buffer.memory.extent(0) > 0) {
          const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), buffer.memory);
          text.append(reinterpret_cast<const char*>(host.data()) + row.begin * size_of(buffer.type),
                      row.elements() * size_of(buffer.type));
        }
      }
    }
    return text;
  }

  ParameterTable table;
  Weight<Storage, 2> embedding, head;
  Weight<Storage, 3> experts, convolution;
  Weight<Real, 1> norm;
  std::vector<TensorFamily> families;
};

CheckpointContent content_at(std::int64_t step) {
  CheckpointContent content{step, "run:\n  seed: 1\n", "run: {seed: 1, steps: 20}\n", {}};
  auto& progress = content.record("progress");
  progress.set("tokens", std::int64_t{1} << 40);
  progress.set("best_evaluation", 1.25);
  progress.set("note", std::string("\xc3\xa9"));
  progress.set("norms", std::vector<double>{});
  progress.set("best_so_far", std::numeric_limits<double>::infinity());
  content.record("data").set("cursor", std::vector<std::int64_t>{3, -1, 7});
  content.record("balance").set("counts", std::vector<double>{0.5, 1e-300});
  content.record("empty");
  content.records["program"] = program_record(2, "avx2 avx512f");
  return content;
}

template <class Storage>
class CheckpointOf : public testing::Test {
 protected:
  TemporaryFolder folder;
};
using Storages = testing::Types<float, double, bf16>;
TYPED_TEST_SUITE(CheckpointOf, Storages);

TYPED_TEST(CheckpointOf, GivesBackEveryBit) {
  Model<TypeParam> written, read;
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
  Model<TypeParam> model;
  model.fill(1);
  write_checkpoint(this->folder / "one.h5", content_at(3), model.table, model.families);
  write_checkpoint(this->folder / "two.h5", content_at(3), model.table, model.families);
  EXPECT_EQ(bytes_of(this->folder / "one.h5"), bytes_of(this->folder / "two.h5"));
}

// What another rank would hold: the boxes of its shard, here the second half of the rows of the
// embedding, an expert, and two of the three boxes of the convolution, cut.
TYPED_TEST(CheckpointOf, IsReadByBoxes) {
  Model<TypeParam> whole;
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
  Model<float> model;
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
  Model<double> other_type;
  EXPECT_EQ(message_of([&] { read_checkpoint_tensors(path, other_type.table, {}); }),
            path +
                ": /parameters/model.embed_tokens.weight: is float32 (37, 5), wanted is "
                "float64 (37, 5)");
  Model<float> other_shape(38);
  EXPECT_EQ(message_of([&] { read_checkpoint_tensors(path, other_shape.table, {}); }),
            path +
                ": /parameters/model.embed_tokens.weight: is float32 (37, 5), wanted is "
                "float32 (38, 5)");
}

TEST_F(Checkpoint, ListsMissingAndUnknownTensors) {
  Model<float> fewer(37, false);
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

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

using Names = std::vector<std::string>;

// The disk can be full at any place: in the metadata, in the tensors.
TEST_F(Checkpoint, AFullDiskCostsNoGoodCheckpoint) {
  const auto length = static_cast<std::int64_t>(bytes_of(path).size());
  Model<float> changed;
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
  Model<float> model;
  EXPECT_EQ(
      message_of([&] { write_checkpoint(folder / "none/x.h5", content_at(1), model.table, {}); }),
      folder / "none" + ": has no known room: No such file or directory");
}

// The file system of processes has room for nothing.
TEST(CheckpointWrite, NamesTheRoomThatIsMissing) {
  Model<float> model;
  const std::string message =
      message_of([&] { write_checkpoint("/proc/x.h5", content_at(1), model.table, {}); });
  EXPECT_EQ(message.find("/proc/x.h5.part: the disk has room for 0 bytes, wanted are "), 0u)
      << message;
}

TEST(CheckpointWrite, WantsABufferForEachGroup) {
  const TemporaryFolder folder;
  Model<float> model;
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

class CheckpointFolderTest : public testing::Test {
 protected:
  void write(const CheckpointFolder& checkpoints, std::int64_t step) {
    checkpoints.write(content_at(step), model.table, model.families);
  }
  void damage(const std::string& path, std::int64_t place) {
    std::string bytes = bytes_of(path);
    bytes[place] ^= 1;
    write_bytes(path, bytes);
  }

  Model<float> model;
  TemporaryFolder parent;
  const std::string folder = parent / "checkpoints";
};

TEST_F(CheckpointFolderTest, KeepsTheNewestAndTheBest) {
  const CheckpointFolder checkpoints(folder, 2);
  EXPECT_EQ(checkpoints.find_newest().path, "");
  for (const int step : {9, 10, 100}) {
    write(checkpoints, step);
    if (step == 9) {
      checkpoints.keep_as_best(9);
      checkpoints.keep_as_best(9);
    }
  }
  EXPECT_EQ(names_in(folder), (Names{"best.h5", "step_10.h5", "step_100.h5"}));
  EXPECT_EQ(read_checkpoint_content(checkpoints.best()).step, 9);
  checkpoints.keep_as_best(10);
  EXPECT_EQ(read_checkpoint_content(checkpoints.best()).step, 10);
  const auto found = checkpoints.find_newest();
  EXPECT_EQ(found.path, folder + "/step_100.h5");
  EXPECT_EQ(found.step, 100);
  EXPECT_TRUE(found.refused.empty());
}

TEST_F(CheckpointFolderTest, OffersTheNextOlderAndSaysWhy) {
  const CheckpointFolder checkpoints(folder, 9);
  for (const int step : {1, 2, 3, 4}) {
    write(checkpoints, step);
  }
  write_bytes(folder + "/step_5.h5", "something else");
  write_bytes(folder + "/step_6.txt", "not looked at");
  write_bytes(folder + "/step_07.h5", "not looked at");
  damage(folder + "/step_4.h5", 1100);
  damage(folder + "/step_3.h5",
         Hdf5File(folder + "/step_3.h5").place_of("/parameters/model.norm.weight"));
  const auto found = checkpoints.find_newest();
  EXPECT_EQ(found.path, folder + "/step_2.h5");
  EXPECT_EQ(found.step, 2);
  ASSERT_EQ(found.refused.size(), 3u);
  EXPECT_EQ(found.refused[0].path, folder + "/step_5.h5");
  EXPECT_NE(found.refused[0].reason.find("is not a checkpoint of qnext"), std::string::npos);
  EXPECT_NE(found.refused[1].reason.find("the hash of its metadata is"), std::string::npos);
  EXPECT_NE(found.refused[2].reason.find("/parameters/model.norm.weight: is damaged"),
            std::string::npos);
}

TEST_F(CheckpointFolderTest, FallsBackToTheBest) {
  const CheckpointFolder checkpoints(folder, 1);
  write(checkpoints, 1);
  checkpoints.keep_as_best(1);
  write(checkpoints, 2);
  damage(folder + "/step_2.h5", 1100);
  EXPECT_EQ(checkpoints.find_newest().path, folder + "/best.h5");
  EXPECT_EQ(checkpoints.find_newest().step, 1);
}

// A run that went on from an older checkpoint never removes what it has just written.
TEST_F(CheckpointFolderTest, NeverRemovesTheOneJustWritten) {
  const CheckpointFolder checkpoints(folder, 1);
  write(checkpoints, 20);
  write(checkpoints, 10);
  EXPECT_EQ(names_in(folder), (Names{"step_10.h5", "step_20.h5"}));
}

TEST_F(CheckpointFolderTest, RemovesWhatAKilledRunLeft) {
  const CheckpointFolder checkpoints(folder, 2);
  write(checkpoints, 1);
  write_bytes(folder + "/step_2.h5.part", "half");
  EXPECT_EQ(checkpoints.find_newest().step, 1);
  EXPECT_EQ(checkpoints.remove_leftovers(), Names{folder + "/step_2.h5.part"});
  EXPECT_EQ(names_in(folder), Names{"step_1.h5"});
}

TEST_F(CheckpointFolderTest, AFullDiskRemovesNothing) {
  const CheckpointFolder checkpoints(folder, 1);
  write(checkpoints, 1);
  {
    const test::FileSizeLimit limit(5000);
    EXPECT_THROW(write(checkpoints, 2), EnvironmentError);
  }
  EXPECT_EQ(names_in(folder), Names{"step_1.h5"});
  EXPECT_EQ(checkpoints.find_newest().step, 1);
}

TEST_F(CheckpointFolderTest, AFolderThatIsNotThereIsEmpty) {
  const CheckpointFolder checkpoints(folder, 1);
  EXPECT_TRUE(checkpoints.remove_leftovers().empty());
  EXPECT_EQ(checkpoints.find_newest().path, "");
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST_F(CheckpointFolderTest, AFolderThatCannotBeMadeIsNamed) {
  write_bytes(parent / "file", "x");
  const CheckpointFolder checkpoints(parent / "file/checkpoints", 1);
  EXPECT_EQ(message_of([&] { write(checkpoints, 1); }),
            parent / "file/checkpoints" + ": cannot be made: Not a directory");
}

// A folder with something in it where a file is expected: even root cannot remove it like a file.
TEST_F(CheckpointFolderTest, NamesWhatCannotBeRemoved) {
  const CheckpointFolder checkpoints(folder, 1);
  const std::string part = folder + "/step_9.h5.part", old = folder + "/step_1.h5";
  std::filesystem::create_directories(part + "/full");
  EXPECT_EQ(message_of([&] { checkpoints.remove_leftovers(); }),
            part + ": cannot be removed: Directory not empty");
  std::filesystem::remove_all(part);
  std::filesystem::create_directories(old + "/full");
  EXPECT_EQ(message_of([&] { write(checkpoints, 2); }),
            old + ": cannot be removed: Directory not empty");
}

TEST_F(CheckpointFolderTest, NamesABestThatIsNotThere) {
  const CheckpointFolder checkpoints(folder, 1);
  EXPECT_EQ(message_of([&] { checkpoints.keep_as_best(3); }),
            checkpoints.best() + ": cannot be made: No such file or directory");
}

}  // namespace
}  // namespace qnext
