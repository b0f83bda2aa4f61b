// SPDX-License-Identifier: Apache-2.0
#include "parallel/process_grid.hpp"

#include <fmt/format.h>

#include <numeric>
#include <unistd.h>

namespace qnext {
namespace {

std::string host_name() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

}  // namespace

Degrees place_of(const Degrees& degrees, int rank) {
  Degrees place;
  place.tensor = rank % degrees.tensor;
  place.context = rank / degrees.tensor % degrees.context;
  place.data = rank / (degrees.tensor * degrees.context) % degrees.data;
  place.pipeline = rank / (degrees.tensor * degrees.context * degrees.data);
  place.expert = rank % (degrees.tensor * degrees.context * degrees.data) % degrees.expert;
  return place;
}

ProcessGrid::ProcessGrid(const Degrees& degrees, const Communicator& all)
    : degrees(degrees), place(place_of(degrees, all.rank())), world(all) {
  require(all.ranks() == degrees.ranks(),
          fmt::format("the grid has {} places, the job {} ranks", degrees.ranks(), all.ranks()));
  const int of_stage = degrees.tensor * degrees.context * degrees.data;
  require(of_stage % degrees.expert == 0,
          fmt::format("the expert degree, {}, must divide tensor x context x data, {}",
                      degrees.expert, of_stage));
  pipeline = world.split(world.rank() % of_stage).named("pipeline");
  stage = world.split(place.pipeline).named("stage");
  tensor = stage.split(place.data * degrees.context + place.context).named("tensor");
  context = stage.split(place.data * degrees.tensor + place.tensor).named("context");
  data = stage.split(place.context * degrees.tensor + place.tensor).named("data");
  copies = stage.split(place.tensor).named("copies");
  expert = stage.split(stage.rank() / degrees.expert).named("expert");
  // Tensor ranks last, so that the tree over data ranks is the same below each of them.
  beside_experts = stage.split(place.expert, place.tensor * copies.ranks() + copies.rank())
                       .named("beside experts");
}

Shard ProcessGrid::expert_part(const std::vector<std::int64_t>& extents) const {
  Shard shard = Shard::whole(extents);
  Box& box = shard.boxes.front();
  box.extent[0] /= degrees.expert;
  box.offset[0] = place.expert * box.extent[0];
  return shard;
}

Shard ProcessGrid::tensor_parts(const std::vector<std::int64_t>& blocks,
                                const std::vector<std::int64_t>& other_extents) const {
  std::vector<std::int64_t> extents{std::accumulate(blocks.begin(), blocks.end(), std::int64_t{0})};
  extents.insert(extents.end(), other_extents.begin(), other_extents.end());
  if (degrees.tensor == 1) {
    return Shard::whole(extents);
  }
  Shard parts = Shard::whole(extents);
  parts.boxes.clear();
  std::int64_t begin = 0;
  for (const std::int64_t block : blocks) {
    extents.front() = block;
    Box box = tensor_part(extents, 0).boxes.front();
    box.offset[0] += begin;
    parts.boxes.push_back(box);
    begin += block;
  }
  return parts;
}

Parameter ProcessGrid::replicated(Parameter parameter, int replicas) const {
  const int holders = replicas > 0 ? replicas : degrees.tensor;
  parameter.reduce_over = ReduceOver::data_and_tensor;
  parameter.replicas = holders == degrees.tensor ? 0 : holders;
  parameter.owner = place.tensor % holders == 0;
  return parameter;
}

std::string rank_map(const ProcessGrid& grid) {
  std::string host = host_name();
  host.resize(256);
  const auto hosts = grid.world.all_gather(std::vector<char>(host.begin(), host.end()));
  std::string text;
  for (int rank = 0; rank < grid.world.ranks(); ++rank) {
    const Degrees place = place_of(grid.degrees, rank);
    text += fmt::format("{}rank={} host={} tensor={} context={} data={} pipeline={} expert={}",
                        rank == 0 ? "" : "\n", rank, &hosts[256 * rank], place.tensor,
                        place.context, place.data, place.pipeline, place.expert);
  }
  return text;
}

}  // namespace qnext
