// SPDX-License-Identifier: Apache-2.0
#include "layers/capacity_over_ranks.hpp"

#include "core/parts.hpp"

#include <vector>

namespace qnext {
namespace {

// A thread takes a rank: its rows lie behind those of the ranks before.
struct FirstRows {
  Tensor<const int, 3> count;  // (R, S, E)
  Tensor<int, 2> offset;       // (R, E + 1)

  KOKKOS_FUNCTION int rows_of(int r, int e) const {
    int rows = 0;
    for (int s = 0; s < count.extent_int(1); ++s) {
      rows += count(r, s, e);
    }
    return rows;
  }

  KOKKOS_FUNCTION void operator()(const int r) const {
    const int E = count.extent_int(2);
    int row = 0;
    for (int before = 0; before < r; ++before) {
      for (int e = 0; e < E; ++e) {
        row += rows_of(before, e);
      }
    }
    for (int e = 0; e < E; ++e) {
      offset(r, e) = row;
      row += rows_of(r, e);
    }
    offset(r, E) = row;
  }
};

// `whole` holds a block for each context rank, in each a part for each tensor rank, which ends at
// `ends`. This rank has filled its part.
template <class View>
void gather(const ProcessGrid& grid, const View& whole, const std::vector<std::int64_t>& borders) {
  const std::int64_t block = borders.back();
  if (grid.degrees.tensor * grid.degrees.context == 1) {
    return;
  }
  const View own(whole.data() + grid.place.context * block, block);
  grid.tensor.all_gather_parts(own, borders);
  std::vector<std::int64_t> blocks;
  for (int c = 0; c <= grid.degrees.context; ++c) {
    blocks.push_back(c * block);
  }
  grid.context.all_gather_parts(whole, blocks);
}

}  // namespace

template <class Real>
typename CapacityOverRanks<Real>::Work CapacityOverRanks<Real>::reserve_work(
    Arena& arena, const MicrobatchShape& shape, int experts, int experts_per_token) const {
  Work work;
  if (capacity_.rule == Capacity::Rule::dropless) {
    return work;
  }
  const int ranks = grid_.degrees.tensor * grid_.degrees.context;
  work.tokens = shape.tokens * grid_.degrees.context;
  work.count = arena.reserve<int, 3>("shared_counts", ranks, shape.sequences, experts);
  work.offset = arena.reserve<int, 2>("shared_offsets", ranks, experts + 1);
  if (capacity_.rule == Capacity::Rule::probability) {
    work.weight =
        arena.reserve<Real, 1>("shared_weights", std::int64_t{1} * work.tokens * experts_per_token);
  }
  return work;
}

template <class Real>
void CapacityOverRanks<Real>::drop(const Exec& exec, const Tensor<const int, 2>& count,
                                   const Routing<Real>& routing, const ExpertRows& rows,
                                   const Work& work) const {
  const int tensor = grid_.degrees.tensor, context = grid_.degrees.context;
  const int rank = grid_.place.context * tensor + grid_.place.tensor;
  const std::int64_t counts = count.size();
  Kokkos::deep_copy(
      exec, Tensor<int, 2>(work.count.data() + rank * counts, count.extent(0), count.extent(1)),
      count);
  std::vector<std::int64_t> borders;
  for (int t = 0; t <= tensor; ++t) {
    borders.push_back(t * counts);
  }
  gather(grid_, Tensor<int, 1>(work.count.data(), work.count.size()), borders);
  Kokkos::parallel_for("capacity::first_rows", Kokkos::RangePolicy<Exec>(exec, 0, tensor * context),
                       FirstRows{work.count, work.offset});

  const std::int64_t S = count.extent(0), K = rows.place.extent(1);
  const std::int64_t piece = work.tokens / context;
  if (capacity_.rule == Capacity::Rule::probability) {
    borders.clear();
    for (int t = 0; t <= tensor; ++t) {
      borders.push_back(part_begin(piece / S, t, tensor) * S * K);
    }
    const std::int64_t mine = grid_.place.context * borders.back() + borders[grid_.place.tensor];
    weights_by_row<Real>(exec, routing, rows,
                         Tensor<Real, 1>(work.weight.data() + mine, rows.place.size()));
    gather(grid_, work.weight, borders);
  }
  drop_beyond<Real>(exec, capacity_, {work.count, work.offset, work.weight, rank, work.tokens},
                    routing, rows);
}

template class CapacityOverRanks<float>;
template class CapacityOverRanks<double>;

}  // namespace qnext
