// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint.hpp"
#include "tests/mpi/world.hpp"
#include "tests/support.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::world;

// A matrix of several pieces of a file (4 MiB), whose rows no border between ranks respects.
struct Model {
  static constexpr int rows = 1100, columns = 1501;

  ParameterTable table;
  Weight<float, 2> matrix;
  Weight<float, 1> norm;

  Model() {
    table.add({.name = "matrix", .shard = Shard::whole({rows, columns})}, matrix);
    table.add({.name = "norm", .shard = Shard::whole({7})}, norm);
    table.lay_out();
    const auto values = table.values<float>(table.rows()[0]);
    Kokkos::deep_copy(values, 0.25f);
  }

  std::int64_t elements() const { return table.groups()[0].elements; }

  // Element i is i / 4, in the part of this rank; nothing outside.
  TensorFamily moment(const Shards& shards, bool filled) const {
    std::vector<double> part(shards.elements(), std::numeric_limits<double>::quiet_NaN());
    for (std::size_t i = 0; filled && i < part.size(); ++i) {
      part[i] = 0.25 * static_cast<double>(shards.begin() + static_cast<std::int64_t>(i));
    }
    const auto numbers = test::to_device<float>(part, static_cast<int>(part.size()));
    const Tensor<std::byte, 1> bytes("moment", part.size() * sizeof(float));
    Kokkos::deep_copy(
        bytes, Tensor<std::byte, 1>(reinterpret_cast<std::byte*>(numbers.data()), bytes.extent(0)));
    return {"moment", {{DataType::float32, bytes, &shards}}};
  }
};

// The folder of the first rank, for all.
struct SharedFolder {
  std::optional<test::TemporaryFolder> own;
  std::string path;

  SharedFolder() {
    if (world().first()) {
      own.emplace();
      path = own->path();
    }
    world().broadcast(path, 0);
  }
  ~SharedFolder() { world().barrier(); }
};

CheckpointContent content() {
  CheckpointContent content;
  content.step = 3;
  content.given_deck = content.resolved_deck = "a: 1\n";
  return content;
}

TEST(Checkpoint, OfManyRanksHasTheBytesOfOne) {
  const SharedFolder folder;
  const Model model;
  const auto shards =
      make_shards(model.table, ProcessGrid(Degrees{.data = world().ranks()}, world()));
  const auto alone = make_shards(model.table, ProcessGrid{});
  const std::string many = folder.path + "/many.h5", one = folder.path + "/one.h5";
  write_checkpoint(many, content(), model.table, {model.moment(shards[0], true)}, world());
  if (world().first()) {
    write_checkpoint(one, content(), model.table, {model.moment(alone[0], true)});
    EXPECT_GT(test::bytes_of(one).size(), 4u * Model::rows * Model::columns);
    EXPECT_EQ(test::bytes_of(many), test::bytes_of(one));
  }
}

TEST(Checkpoint, EachRankReadsItsPart) {
  const SharedFolder folder;
  const Model model;
  const auto shards =
      make_shards(model.table, ProcessGrid(Degrees{.data = world().ranks()}, world()));
  const auto alone = make_shards(model.table, ProcessGrid{});
  const std::string path = folder.path + "/one.h5";
  if (world().first()) {
    write_checkpoint(path, content(), model.table, {model.moment(alone[0], true)});
  }
  world().barrier();
  const TensorFamily moment = model.moment(shards[0], false);
  read_checkpoint_tensors(path, model.table, {moment});
  const auto found = test::to_host(Tensor<float, 1>(
      reinterpret_cast<float*>(moment.buffers[0].memory.data()), shards[0].elements()));
  const std::int64_t of_matrix = std::int64_t{Model::rows} * Model::columns;
  const std::int64_t norm = model.table.rows()[1].begin;
  for (std::int64_t i = shards[0].begin(); i < shards[0].end(); ++i) {
    if (i < of_matrix || (i >= norm && i < norm + 7)) {  // else padding
      ASSERT_EQ(found[i - shards[0].begin()], static_cast<float>(0.25 * static_cast<double>(i)));
    }
  }
}

// Tensors that tensor ranks divide in every way, none of them evenly, and experts.
struct DividedModel {
  ParameterTable table;
  Weight<float, 2> rows, columns;
  Weight<float, 3> channels, experts;
  Weight<float, 1> norm;
  std::vector<Shards> shards;

  explicit DividedModel(const ProcessGrid& grid) {
    const Init init = Init::normal(1.0);
    table.add({.name = "rows", .shard = grid.tensor_part({1100, 1501}, 0), .init = init}, rows);
    table.add({.name = "columns", .shard = grid.tensor_part({37, 41}, 1), .init = init}, columns);
    table.add({.name = "channels", .shard = grid.tensor_parts({14, 14, 9}, {1, 3}), .init = init},
              channels);
    table.add({.name = "experts",
               .shard = grid.expert_part({12, 71, 53}),
               .init = init,
               .reduce_over = ReduceOver::data_beside_experts},
              experts);
    table.add(grid.replicated({.name = "norm", .shard = Shard::whole({77}), .init = init}), norm);
    table.lay_out();
    shards = make_shards(table, grid);
  }

  // The part of this rank of a copy of the parameters.
  TensorFamily moment() const {
    TensorFamily family{"moment", {}};
    for (std::size_t g = 0; g < shards.size(); ++g) {
      const Tensor<std::byte, 1> bytes("moment", shards[g].elements() * sizeof(float));
      Kokkos::deep_copy(bytes, Tensor<std::byte, 1>(table.groups()[g].values.data() +
                                                        shards[g].begin() * sizeof(float),
                                                    bytes.extent(0)));
      family.buffers.push_back({DataType::float32, bytes, &shards[g]});
    }
    return family;
  }
};

ProcessGrid tensor_grid() {
  const int data = world().ranks() % 2 == 0 ? 2 : 1;
  return ProcessGrid(Degrees{.tensor = world().ranks() / data, .data = data}, world());
}

// All ranks are data ranks, two groups of them if they can be.
ProcessGrid expert_grid() {
  const int groups = world().ranks() % 2 == 0 ? 2 : 1;
  return ProcessGrid(Degrees{.expert = world().ranks() / groups, .data = world().ranks()}, world());
}

void expect_bytes_of_one(const ProcessGrid& grid) {
  const SharedFolder folder;
  DividedModel model(grid), alone(ProcessGrid{});
  initialise(model.table, 5);
  initialise(alone.table, 5);
  const std::string many = folder.path + "/many.h5", one = folder.path + "/one.h5";
  write_checkpoint(many, content(), model.table, {model.moment()}, world(), grid.parts());
  if (world().first()) {
    write_checkpoint(one, content(), alone.table, {alone.moment()});
    EXPECT_EQ(test::bytes_of(many), test::bytes_of(one));
  }
}

void expect_read_parts(const ProcessGrid& grid) {
  const SharedFolder folder;
  DividedModel wanted(grid), found(grid), alone(ProcessGrid{});
  initialise(wanted.table, 5);
  initialise(alone.table, 5);
  const std::string path = folder.path + "/one.h5";
  if (world().first()) {
    write_checkpoint(path, content(), alone.table, {alone.moment()});
  }
  world().barrier();
  const TensorFamily moment = found.moment(), wanted_moment = wanted.moment();
  read_checkpoint_tensors(path, found.table, {moment});
  for (std::size_t g = 0; g < moment.buffers.size(); ++g) {
    const auto numbers = [](const Tensor<std::byte, 1>& bytes) {
      return test::to_host(Tensor<float, 1>(reinterpret_cast<float*>(bytes.data()),
                                            bytes.extent(0) / sizeof(float)));
    };
    EXPECT_EQ(numbers(found.table.groups()[g].values), numbers(wanted.table.groups()[g].values));
    EXPECT_EQ(numbers(moment.buffers[g].memory), numbers(wanted_moment.buffers[g].memory));
  }
}

TEST(Checkpoint, OfTensorRanksHasTheBytesOfOne) {
  expect_bytes_of_one(tensor_grid());
}
TEST(Checkpoint, OfExpertRanksHasTheBytesOfOne) {
  expect_bytes_of_one(expert_grid());
}
TEST(Checkpoint, TensorRanksReadTheirParts) {
  expect_read_parts(tensor_grid());
}
TEST(Checkpoint, ExpertRanksReadTheirParts) {
  expect_read_parts(expert_grid());
}

}  // namespace
}  // namespace qnext
