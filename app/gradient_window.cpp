// SPDX-License-Identifier: Apache-2.0
#include "app/gradient_window.hpp"

#include "core/require.hpp"

#include <algorithm>
#include <numeric>
#include <string>

namespace qnext {
namespace {

using Place = GradientWindow::Place;

bool meet(const Place& a, const Place& b) {
  return a.begin < b.begin + b.bytes && b.begin < a.begin + a.bytes;
}

// The lowest place between those that are taken.
std::int64_t lowest_place(std::vector<const Place*> taken, std::int64_t bytes) {
  std::sort(taken.begin(), taken.end(),
            [](const Place* a, const Place* b) { return a->begin < b->begin; });
  std::int64_t begin = 0;
  for (const Place* const each : taken) {
    if (begin + bytes <= each->begin) {
      break;
    }
    begin = std::max(begin, each->begin + each->bytes);
  }
  return begin;
}

}  // namespace

GradientWindow::GradientWindow(const ParameterTable& table,
                               const std::vector<BackwardPieces>& chunks)
    : groups(table.groups().size()) {
  for (const BackwardPieces& pieces : chunks) {
    for (std::size_t piece = 0; piece < pieces.size(); ++piece) {
      for (const std::size_t row : pieces[piece]) {
        Place& place = groups[table.rows()[row].group];
        place.first_piece = place.first_piece < 0 ? static_cast<int>(piece) : place.first_piece;
        place.last_piece = static_cast<int>(piece);
      }
    }
  }
  std::vector<std::size_t> order(groups.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return groups[a].first_piece < groups[b].first_piece;
  });
  std::vector<std::size_t> placed;
  for (const std::size_t g : order) {
    const auto& group = table.groups()[g];
    Place& place = groups[g];
    require(place.first_piece >= 0,
            "group " + std::to_string(g) + " has no place in a backward pass");
    place.bytes = group.elements * size_of(accum_of(group.type));
    std::vector<const Place*> taken;
    for (const std::size_t other : placed) {
      const bool same_pass = table.groups()[other].chunk == group.chunk;
      if (same_pass && groups[other].last_piece + pieces_on_the_way >= place.first_piece) {
        taken.push_back(&groups[other]);
      }
    }
    place.begin = lowest_place(taken, place.bytes);
    bytes = std::max(bytes, place.begin + place.bytes);
    placed.push_back(g);
  }
  for (Place& place : groups) {
    for (std::size_t other = 0; other < groups.size(); ++other) {
      if (meet(place, groups[other])) {
        place.shares.push_back(other);
      }
    }
  }
}

std::vector<std::int64_t> GradientWindow::begins() const {
  std::vector<std::int64_t> all;
  for (const Place& place : groups) {
    all.push_back(place.begin);
  }
  return all;
}

}  // namespace qnext
