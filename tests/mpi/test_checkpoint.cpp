// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints of every layout of the ranks there are: the bytes of one rank, and read by another.
#include "core/require.hpp"
#include "io/checkpoint.hpp"
#include "io/hdf5_file.hpp"
#include "tests/file_size_limit.hpp"
#include "tests/mpi/shared_folder.hpp"
#include "tests/mpi/world.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::bytes_of;
using test::SharedFolder;
using test::world;

// Two layers and an embedding of several pieces of a file (4 MiB), divided in every way, most of
// them not evenly; no border between ranks respects a row. A rank has the layers of its stage.
struct Model {
  struct Layer {
    Weight<float, 2> rows, columns, shared;
    Weight<float, 3> channels, experts;
    Weight<float, 1> norm;
  };

  ParameterTable table;
  Weight<bf16, 2> embedding;
  std::deque<Layer> layers;
  std::vector<Shards> shards;

  explicit Model(const ProcessGrid& grid) {
    const Init init = Init::normal(1.0);
    if (grid.place.pipeline == 0) {
      table.add({.name = "embedding", .shard = grid.tensor_part({1100, 2003}, 0), .init = init},
                embedding);
    }
    for (int l = 0; l < 2; ++l) {
      if (l * grid.degrees.pipeline / 2 == grid.place.pipeline) {
        add_layer(grid, "layer." + std::to_string(l) + ".", init);
      }
    }
    table.lay_out();
    shards = make_shards(table, grid);
  }

  void add_layer(const ProcessGrid& grid, const std::string& name, const Init& init) {
    Layer& layer = layers.emplace_back();
    table.add({.name = name + "rows", .shard = grid.tensor_part({129, 67}, 0), .init = init},
              layer.rows);
    table.add({.name = name + "columns", .shard = grid.tensor_part({137, 41}, 1), .init = init},
              layer.columns);
    table.add(
        {.name = name + "channels", .shard = grid.tensor_parts({14, 14, 9}, {1, 3}), .init = init},
        layer.channels);
    table.add({.name = name + "experts",
               .shard = grid.expert_part({12, 71, 53}),
               .init = init,
               .reduce_over = ReduceOver::data_beside_experts},
              layer.experts);
    table.add(grid.replicated({.name = name + "norm", .shard = Shard::whole({77}), .init = init}),
              layer.norm);
    const int replicas = grid.degrees.tensor % 2 == 0 ? 2 : 1;
    table.add(grid.replicated({.name = name + "shared",
                               .shard = grid.tensor_part({34, 9}, 0, replicas),
                               .init = init},
                              replicas),
              layer.shared);
  }

  // The part of this rank of a copy of the parameters: numbers of the same type.
  TensorFamily moment() const {
    TensorFamily family{"optimizer/moment", {}};
    for (std::size_t g = 0; g < shards.size(); ++g) {
      const DataType type = table.groups()[g].type;
      const Tensor<std::byte, 1> bytes("moment", shards[g].elements() * size_of(type));
      Kokkos::deep_copy(bytes, Tensor<std::byte, 1>(table.groups()[g].values.data() +
                                                        shards[g].begin() * size_of(type),
                                                    bytes.extent(0)));
      family.buffers.push_back({type, bytes, &shards[g], shards[g].begin()});
    }
    return family;
  }
};

std::vector<std::byte> host(const Tensor<std::byte, 1>& bytes) {
  const auto copy = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), bytes);
  return {copy.data(), copy.data() + copy.extent(0)};
}

CheckpointContent content(std::int64_t step = 3) {
  CheckpointContent content;
  content.step = step;
  content.given_deck = content.resolved_deck = "a: 1\n";
  return content;
}

// Each degree in turn, and mixtures.
std::vector<Degrees> layouts() {
  switch (world().ranks()) {
    case 1:
      return {{}};
    case 2:
      return {
          {.data = 2}, {.tensor = 2}, {.context = 2}, {.pipeline = 2}, {.expert = 2, .data = 2}};
    default:
      return {{.data = 4},
              {.tensor = 4},
              {.expert = 4, .data = 4},
              {.expert = 2, .data = 4},
              {.tensor = 2, .data = 2},
              {.tensor = 2, .expert = 2, .data = 2},
              {.tensor = 2, .expert = 4, .data = 2},
              {.context = 2, .data = 2},
              {.tensor = 2, .context = 2, .expert = 2},
              {.pipeline = 2, .data = 2},
              {.tensor = 2, .pipeline = 2},
              {.context = 2, .pipeline = 2, .expert = 2}};
  }
}

std::string name_of(const Degrees& d) {
  return "tensor " + std::to_string(d.tensor) + " context " + std::to_string(d.context) +
         " pipeline " + std::to_string(d.pipeline) + " expert " + std::to_string(d.expert) +
         " data " + std::to_string(d.data);
}

std::vector<Access> accesses() {
  return Hdf5File::opens_together() ? std::vector{Access::together, Access::in_turns}
                                    : std::vector{Access::in_turns};
}

// Of one rank that has the whole model; by the first rank.
void write_alone(const std::string& path) {
  if (world().first()) {
    Model alone(ProcessGrid{});
    initialise(alone.table, 5);
    write_checkpoint(path, content(), alone.table, {alone.moment()});
  }
  world().barrier();
}

TEST(Checkpoint, OfEveryLayoutHasTheBytesOfOneRank) {
  const SharedFolder folder;
  write_alone(folder.path + "/one.h5");
  for (const Degrees& degrees : layouts()) {
    for (const Access access : accesses()) {
      const ProcessGrid grid(degrees, world());
      Model model(grid);
      initialise(model.table, 5);
      const std::string many = folder.path + "/many.h5";
      write_checkpoint(many, content(), model.table, {model.moment()}, model.shards, world(),
                       access);
      if (world().first()) {
        EXPECT_TRUE(bytes_of(many) == bytes_of(folder.path + "/one.h5"))
            << name_of(degrees) << (access == Access::together ? ", together" : ", in turns");
      }
    }
  }
}

TEST(Checkpoint, IsReadByEveryLayout) {
  const SharedFolder folder;
  const std::string path = folder.path + "/one.h5";
  write_alone(path);
  for (const Degrees& degrees : layouts()) {
    const ProcessGrid grid(degrees, world());
    Model wanted(grid), found(grid);
    initialise(wanted.table, 5);
    const TensorFamily moment = found.moment(), wanted_moment = wanted.moment();
    read_checkpoint_tensors(path, found.table, {moment}, world());
    for (std::size_t g = 0; g < moment.buffers.size(); ++g) {
      EXPECT_TRUE(host(found.table.groups()[g].values) == host(wanted.table.groups()[g].values))
          << name_of(degrees);
      EXPECT_TRUE(host(moment.buffers[g].memory) == host(wanted_moment.buffers[g].memory))
          << name_of(degrees);
    }
  }
}

// Whichever rank reads the damaged tensor for its hash: all of them refuse.
TEST(Checkpoint, ADamagedTensorIsRefusedByAllRanks) {
  const SharedFolder folder;
  const std::string path = folder.path + "/one.h5";
  write_alone(path);
  const ProcessGrid grid(layouts().front(), world());
  Model model(grid);
  for (const std::string name : {"parameters/layer.0.rows", "optimizer/moment/embedding"}) {
    const std::string good = bytes_of(path);
    world().barrier();
    if (world().first()) {
      std::string bytes = good;
      bytes[Hdf5File(path).place_of("/" + name) + 5] ^= 1;
      test::write_bytes(path, bytes);
    }
    world().barrier();
    const TensorFamily moment = model.moment();
    for (const auto& read : {std::function<void()>([&] { verify_checkpoint(path, world()); }),
                             std::function<void()>([&] {
                               read_checkpoint_tensors(path, model.table, {moment}, world());
                             })}) {
      try {
        read();
        ADD_FAILURE() << "accepted";
      } catch (const Error& error) {
        EXPECT_EQ(error.status(), Status::bad_number);
        EXPECT_EQ(std::string(error.what()).find(path + ": /" + name + ": is damaged"), 0u)
            << error.what();
      }
    }
    world().barrier();
    if (world().first()) {
      test::write_bytes(path, good);
    }
    world().barrier();
  }
}

// The last rank alone meets the limit. Its reason reaches all ranks; what was there stays.
TEST(Checkpoint, AFullDiskOfOneRankCostsNoGoodCheckpoint) {
  const SharedFolder folder;
  const std::string path = folder.path + "/one.h5";
  write_alone(path);
  const std::string good = bytes_of(path);
  const ProcessGrid grid(layouts().front(), world());
  const Model model(grid);
  for (const Access access : accesses()) {
    world().barrier();
    std::string message = "nothing was refused";
    {
      std::optional<test::FileSizeLimit> limit;
      if (world().rank() == world().ranks() - 1) {
        limit.emplace(4096);
      }
      try {
        write_checkpoint(path, content(4), model.table, {model.moment()}, model.shards, world(),
                         access);
      } catch (const Error& error) {
        EXPECT_EQ(error.status(), Status::environment);
        message = error.what();
      }
    }
    EXPECT_EQ(message.find(path + ".part: "), 0u) << message;
    EXPECT_NE(message.find("File too large"), std::string::npos) << message;
    world().barrier();
    EXPECT_FALSE(std::filesystem::exists(path + ".part"));
    EXPECT_TRUE(bytes_of(path) == good);
  }
}

}  // namespace
}  // namespace qnext
