// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "layers/kernels/attention_slot.hpp"

namespace qnext::attention {

/// What a team that owns query rows does with them and with each tile of keys and values that
/// passes by. The caller loads slot.q, and the keys and values of every visit.
template <class Storage>
struct ForwardWalk {
  using Real = Accum<Storage>;

  Geometry n;
  Scale<Storage> scale;
  int groups = 1;  // key heads that a team takes together: 1 or G

  /// Columns of the tiles of keys and values from one key head to the next.
  KOKKOS_FUNCTION int group_columns() const { return tile::stored_columns<Storage>(n.W); }

  /// Turns the loaded queries; they have seen nothing yet.
  KOKKOS_FUNCTION void begin_rows(const RowTeam& team, const ForwardSlot<Storage>& slot,
                                  const QueryBlock& block) const {
    for (int i = 0; i < groups; ++i) {
      tile::right<Storage>(team, Turn::turned,
                           slot.q.block(i * block.group_rows(), 0, block.group_rows(), n.W),
                           queries_of_group(slot, block, i));
    }
    clear(team, slot.out.block(0, 0, block.rows(), n.W));
    for_each_in(team, block.rows(), [&](const int r) {
      slot.maximum[r] = lowest_maximum<Real>;
      slot.sum[r] = 0;
    });
  }

  // The transposed queries of a key head begin at a column that operands may begin at.
  KOKKOS_FUNCTION OperandMemory<Storage> queries_of_group(const ForwardSlot<Storage>& slot,
                                                          const QueryBlock& block, int i) const {
    const std::int64_t elements =
        tile::rounds<Storage>
            ? std::int64_t(tile::padded_terms(n.W)) * tile::padded_lanes(block.group_rows())
            : std::int64_t(n.W) * padded_stride(block.group_rows());
    return {slot.q_t.data + i * elements, 0};
  }

  // `offset` is the place of the first key relative to the first query token of the block. Rows of
  // tokens before that key see none of them and are left out, if they are the first of the block.
  KOKKOS_FUNCTION void visit(const RowTeam& team, const ForwardSlot<Storage>& slot,
                             const QueryBlock& block, int offset, int count) const {
    const int unseeing = groups == 1 ? larger(0, offset * n.R()) : 0;
    const int first = unseeing / tile::column_step<Storage> * tile::column_step<Storage>;
    const int rows = block.group_rows() - first;
    for (int i = 0; i < groups; ++i) {
      const int begin = i * block.group_rows() + first;
      const auto scores = slot.scores.block(0, begin, count, rows);
      const auto queries =
          tile::prepared_right<Storage>(queries_of_group(slot, block, i), n.W, block.group_rows());
      tile::multiply<Storage>(team,
                              tile::left<Storage>(slot.k.block(0, i * group_columns(), count, n.W)),
                              queries.block(0, first, n.W, rows), scores);
      if (scale.of_score != Real(1)) {
        for (int j = 0; j < count; ++j) {
          Real* const row = &scores(j, 0);
          for_each_in(team, rows, [&](const int r) { row[r] *= scale.of_score; });
        }
        team.team_barrier();
      }
      for (int j = larger(0, 1 - offset); j < count; ++j) {
        const int unseen = (offset + j) * n.R() - first;
        Real* const row = &slot.scores(j, begin);
        for_each_in(team, unseen, [&](const int r) { row[r] = masked<Real>; });
      }
    }
    team.team_barrier();
    const auto scores = slot.scores.block(0, first, count, block.rows() - first);
    weigh(team, slot, scores, first);
    for (int i = 0; i < groups; ++i) {
      const int begin = i * block.group_rows();
      tile::multiply_add<Storage>(
          team,
          tile::left<Storage>(team, Turn::turned, scores.block(0, begin, count, rows),
                              slot.weights),
          tile::right<Storage>(team, Turn::plain, slot.v.block(0, i * group_columns(), count, n.W),
                               slot.values),
          slot.out.block(begin + first, 0, rows, n.W));
    }
    team.team_barrier();
  }

  // The online softmax, (2) to (4): turns scores into weights relative to the running maximum.
  KOKKOS_FUNCTION void weigh(const RowTeam& team, const ForwardSlot<Storage>& slot,
                             const Tile<Real>& scores, int first) const {
    const int rows = scores.columns;
    Real* const maximum = slot.maximum + first;
    Real* const highest = slot.highest + first;
    Real* const sum = slot.sum + first;
    Real* const correction = slot.correction + first;
    for_each_in(team, rows, [&](const int r) { highest[r] = maximum[r]; });
    for (int j = 0; j < scores.rows; ++j) {
      const Real* const row = &scores(j, 0);
      for_each_in(team, rows, [&](const int r) { highest[r] = max(highest[r], row[r]); });
    }
    for_each_in(team, rows, [&](const int r) {
      correction[r] = exp(maximum[r] - highest[r]);
      maximum[r] = highest[r];
      sum[r] *= correction[r];
    });
    for (int j = 0; j < scores.rows; ++j) {
      Real* const row = &scores(j, 0);
      for_each_in(team, rows, [&](const int r) {
        const Real weight = exp(row[r] - maximum[r]);
        row[r] = weight;
        sum[r] += weight;
      });
    }
    team.team_barrier();
    for (int r = 0; r < rows; ++r) {
      const Real factor = correction[r];
      if (factor != Real(1)) {
        Real* const row = &slot.out(first + r, 0);
        for_each_in(team, n.W, [&](const int w) { row[w] *= factor; });
      }
    }
    team.team_barrier();
  }
};

}  // namespace qnext::attention
