// SPDX-License-Identifier: Apache-2.0
#include "parallel/process_grid.hpp"

#include <fmt/format.h>

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
  data = world.split((place.pipeline * degrees.context + place.context) * degrees.tensor +
                     place.tensor);
  const int stage = degrees.tensor * degrees.context * degrees.data;
  require(stage % degrees.expert == 0,
          fmt::format("the expert degree, {}, must divide tensor x context x data, {}",
                      degrees.expert, stage));
  expert = world.split(world.rank() / degrees.expert);
  beside_experts = world.split(place.pipeline * degrees.expert + place.expert);
}

Shard ProcessGrid::expert_part(const std::vector<std::int64_t>& extents) const {
  Shard shard = Shard::whole(extents);
  Box& box = shard.boxes.front();
  box.extent[0] /= degrees.expert;
  box.offset[0] = place.expert * box.extent[0];
  return shard;
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
