// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/team.hpp"
#include "core/tile.hpp"
#include "core/types.hpp"

#include <algorithm>
#include <cstdint>

/// Kernels whose units of work differ in length run as many teams as fit at the same time. Each
/// team has a slot of the workspace for its tiles and fetches unit after unit from a counter. What
/// a unit writes does not depend on who takes it.
namespace qnext {

/// The stride of a tile: an odd number of cache lines, so that the rows of a block of columns
/// spread over all sets of the first cache.
KOKKOS_INLINE_FUNCTION int padded_stride(int columns) {
  return ((columns + 15) / 16 | 1) * 16;
}

/// Hands out the tiles of one slot, one after the other; without memory it only counts.
template <class Real>
struct TileSpace {
  Real* memory;
  std::int64_t used;

  KOKKOS_INLINE_FUNCTION tile::Tile<Real> take(int rows, int columns) {
    const tile::Tile<Real> tile{memory == nullptr ? nullptr : memory + used, rows, columns,
                                padded_stride(columns)};
    used += static_cast<std::int64_t>(rows) * tile.stride;
    return tile;
  }

  KOKKOS_INLINE_FUNCTION Real* take_row(int columns) { return take(1, columns).data; }
};

/// How many slots `units` pieces of work can use at the same time.
inline int slots_for(std::int64_t units) {
  constexpr int most_teams_of_a_device = 256;
  const std::int64_t together = device_backend ? most_teams_of_a_device : Exec{}.concurrency();
  return static_cast<int>(std::max<std::int64_t>(1, std::min(together, units)));
}

/// The next unit that nobody took, the same for all lanes of the team. `next` starts at zero.
KOKKOS_INLINE_FUNCTION int take_unit(const RowTeam& team, const Tensor<int, 1>& next) {
  int unit = 0;
  team.team_barrier();
  Kokkos::single(
      Kokkos::PerTeam(team), [&](int& taken) { taken = Kokkos::atomic_fetch_add(&next(0), 1); },
      unit);
  return unit;
}

}  // namespace qnext
