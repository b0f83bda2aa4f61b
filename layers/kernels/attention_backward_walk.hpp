// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "layers/kernels/attention_slot.hpp"

namespace qnext::attention {

/// Consecutive queries and consecutive keys of one document, which may be the same tokens.
struct Meeting {
  int first_query;  // token
  int queries;
  int first_key;  // token
  int keys;
  int offset;  // how many tokens the first key stands behind the first query: 0 or less
};

/// The two walks of the adjoint, (5) to (8). The caller stores what they leave in their slot.
template <class Storage>
struct BackwardWalk {
  using Real = Accum<Storage>;

  Geometry n;
  Scale<Storage> scale;
  Tensor<const Storage, 3> q;     // (T, H, W)
  Tensor<const Storage, 3> k;     // (T, G, W)
  Tensor<const Storage, 3> v;     // (T, G, W)
  Tensor<const Storage, 3> dout;  // (T, H, W)
  Tensor<const Real, 2> lse;      // (T, H)
  Tensor<const Real, 2> delta;    // (T, H)

  /// Block `index` of the queries visits the keys up to its last token: slot.dq, without sigma.
  KOKKOS_FUNCTION QueryBlock own_queries(const RowTeam& team, const QuerySlot<Storage>& slot,
                                         const Meeting& pair, int index, int g) const {
    const QueryBlock block =
        query_block(pair.first_query, pair.queries, index, n.tokens_in(n.own), g, n.R());
    const auto rows = slot.rows.block(0, 0, block.rows(), n.W);
    load_queries<Storage>(team, q, block, scale.of_query, rows);
    const auto queries = tile::right<Storage>(team, Turn::turned, rows, slot.q_t);
    load_queries<Storage>(team, dout, block, Real(1), rows);
    const auto dout_t = tile::right<Storage>(team, Turn::turned, rows, slot.dout_t);
    clear(team, slot.dq.block(0, 0, block.rows(), n.W));
    for_each_in(team, block.rows(), [&](const int r) {
      slot.lse[r] = lse(block.token(r), block.head(r));
      slot.delta[r] = delta(block.token(r), block.head(r));
    });
    const int keys = smaller(pair.keys, block.first + block.tokens - pair.offset);
    for (int first = 0; first < keys; first += n.visited) {
      const int count = smaller(n.visited, keys - first);
      load_rows<Storage>(team, k, pair.first_key + first, count, block.g, slot.k);
      load_rows<Storage>(team, v, pair.first_key + first, count, block.g, slot.v);
      visit(team, slot, queries, dout_t, block, pair.offset + first - block.first, count);
    }
    return block;
  }

  /// `count` keys from the one `first` places behind the first visit the queries that see them:
  /// slot.dk without the scale of the scores, slot.dv.
  KOKKOS_FUNCTION void own_keys(const RowTeam& team, const KeySlot<Storage>& slot,
                                const Meeting& pair, int first, int count, int g) const {
    const int tokens = n.tokens_in(n.visited);
    const auto owned = slot.rows.block(0, 0, count, n.W);
    load_rows<Storage>(team, k, pair.first_key + first, count, g, owned);
    const auto k_t = tile::right<Storage>(team, Turn::turned, owned, slot.k_t);
    load_rows<Storage>(team, v, pair.first_key + first, count, g, owned);
    const auto v_t = tile::right<Storage>(team, Turn::turned, owned, slot.v_t);
    clear(team, slot.dk.block(0, 0, count, n.W));
    clear(team, slot.dv.block(0, 0, count, n.W));
    const int seen_from = larger(0, pair.offset + first);
    for (int index = seen_from / tokens; index * tokens < pair.queries; ++index) {
      const QueryBlock block = query_block(pair.first_query, pair.queries, index, tokens, g, n.R());
      load_queries<Storage>(team, q, block, scale.of_query, slot.q);
      load_queries<Storage>(team, dout, block, Real(1), slot.dout);
      visit(team, slot, k_t, v_t, block, pair.offset + first - block.first, count);
    }
  }

 private:
  KOKKOS_FUNCTION void visit(const RowTeam& team, const QuerySlot<Storage>& slot,
                             const Right<Storage>& queries, const Right<Storage>& dout_t,
                             const QueryBlock& block, int offset, int count) const {
    const int first =
        larger(0, offset * n.R()) / tile::column_step<Storage> * tile::column_step<Storage>;
    const int rows = block.rows() - first;
    const auto keys = slot.k.block(0, 0, count, n.W);
    const auto weights = slot.weights.block(0, first, count, rows);
    const auto dscores = slot.dscores.block(0, first, count, rows);
    tile::multiply<Storage>(team, tile::left<Storage>(keys), queries.block(0, first, n.W, rows),
                            weights);
    tile::multiply<Storage>(team, tile::left<Storage>(slot.v.block(0, 0, count, n.W)),
                            dout_t.block(0, first, n.W, rows), dscores);
    const Real of_score = scale.of_score;
    const Real* const row_lse = slot.lse + first;
    const Real* const row_delta = slot.delta + first;
    for (int j = 0; j < count; ++j) {
      const int before = larger(0, (offset + j) * n.R() - first);
      const Real* const score = &weights(j, 0);
      Real* const dscore = &dscores(j, 0);
      for_each_in(team, rows, [&](const int r) {
        const Real weight = exp(of_score * score[r] - row_lse[r]);
        dscore[r] = weight * (dscore[r] - row_delta[r]);
      });
      for_each_in(team, before, [&](const int r) { dscore[r] = 0; });
    }
    team.team_barrier();
    tile::multiply_add<Storage>(team, tile::left<Storage>(team, Turn::turned, dscores, slot.turned),
                                tile::right<Storage>(team, Turn::plain, keys, slot.keys),
                                slot.dq.block(first, 0, rows, n.W));
    team.team_barrier();
  }

  // Rows of tokens before the first key and keys behind the last token are left out.
  KOKKOS_FUNCTION void visit(const RowTeam& team, const KeySlot<Storage>& slot,
                             const Right<Storage>& k_t, const Right<Storage>& v_t,
                             const QueryBlock& block, int offset, int owned) const {
    const int first = larger(0, offset * n.R()), rows = block.rows() - first;
    const int count = smaller(owned, block.tokens - offset);
    const auto row_q = slot.q.block(first, 0, rows, n.W);
    const auto row_dout = slot.dout.block(first, 0, rows, n.W);
    const auto weights = slot.weights.block(first, 0, rows, count);
    const auto dscores = slot.dscores.block(first, 0, rows, count);
    tile::multiply<Storage>(team, tile::left<Storage>(row_q), k_t.block(0, 0, n.W, count), weights);
    tile::multiply<Storage>(team, tile::left<Storage>(row_dout), v_t.block(0, 0, n.W, count),
                            dscores);
    for (int i = 0; i < rows; ++i) {
      const int r = first + i, seen = smaller(count, r / n.R() - offset + 1);
      const Real row_lse = lse(block.token(r), block.head(r));
      const Real row_delta = delta(block.token(r), block.head(r));
      Real* const weight = &weights(i, 0);
      Real* const dscore = &dscores(i, 0);
      for_each_in(team, seen, [&](const int j) {
        const Real value = exp(scale.of_score * weight[j] - row_lse);
        weight[j] = value;
        dscore[j] = value * (dscore[j] - row_delta);
      });
      for_each_in(team, count - seen, [&](const int j) {
        weight[seen + j] = 0;
        dscore[seen + j] = 0;
      });
    }
    team.team_barrier();
    tile::multiply_add<Storage>(team, tile::left<Storage>(team, Turn::turned, weights, slot.turned),
                                tile::right<Storage>(team, Turn::plain, row_dout, slot.visitors),
                                slot.dv.block(0, 0, count, n.W));
    tile::multiply_add<Storage>(team, tile::left<Storage>(team, Turn::turned, dscores, slot.turned),
                                tile::right<Storage>(team, Turn::plain, row_q, slot.visitors),
                                slot.dk.block(0, 0, count, n.W));
    team.team_barrier();
  }
};

}  // namespace qnext::attention
