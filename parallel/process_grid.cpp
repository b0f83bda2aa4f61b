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
  tensor =
      world.split((place.pipeline * degrees.data + place.data) * degrees.context + place.context);
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
