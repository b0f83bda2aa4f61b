// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/attention_slot.hpp"

namespace qnext {
namespace {

using namespace attention;

template <class Storage>
struct AttentionBackward {
  using Real = Accum<Storage>;

  Documents documents;
  Geometry n;
  AttentionInput<Storage> in;
  Tensor<const Storage, 3> dout;
  Tensor<const Real, 2> lse;
  Tensor<const Real, 2> delta;
  AttentionGradient<Storage> gradient;
  AttentionWork<Real> work;
  Scale<Storage> scale;
};

// The gradient of q, (7): a team owns a block of query tokens with the heads of one key head and
// visits the keys. The longest blocks come first.
template <class Storage>
struct QueryGradient : AttentionBackward<Storage> {
  using Real = Accum<Storage>;
  using Base = AttentionBackward<Storage>;
  using Base::delta, Base::documents, Base::dout, Base::gradient, Base::in, Base::lse, Base::n,
      Base::scale, Base::work;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int tokens = n.tokens_in(n.own), in_block = documents.count * n.G;
    const int query_blocks = blocks_of(documents.longest, tokens);
    const int units = query_blocks * in_block;
    TileSpace<Real> space{&work.slots(team.league_rank(), 0), 0};
    const QuerySlot<Storage> slot(space, n);
    for (int unit = take_unit(team, work.next); unit < units; unit = take_unit(team, work.next)) {
      const int index = query_blocks - 1 - unit / in_block;
      const int document = unit % in_block / n.G;
      const int begin = documents.begin(document);
      const int length = documents.begin(document + 1) - begin;
      if (index * tokens < length) {
        walk(team, slot, query_block(begin, length, index, tokens, unit % n.G, n.R()));
      }
    }
  }

  KOKKOS_FUNCTION void walk(const RowTeam& team, const QuerySlot<Storage>& slot,
                            const QueryBlock& block) const {
    const auto rows = slot.rows.block(0, 0, block.rows(), n.W);
    load_queries<Storage>(team, in.q, block, scale.of_query, rows);
    const auto q = tile::right<Storage>(team, Turn::turned, rows, slot.q_t);
    load_queries<Storage>(team, dout, block, Real(1), rows);
    const auto dout_t = tile::right<Storage>(team, Turn::turned, rows, slot.dout_t);
    clear(team, slot.dq.block(0, 0, block.rows(), n.W));
    for_each_in(team, block.rows(), [&](const int r) {
      slot.lse[r] = lse(block.token(r), block.head(r));
      slot.delta[r] = delta(block.token(r), block.head(r));
    });
    const int keys = block.first + block.tokens;
    for (int first_key = 0; first_key < keys; first_key += n.visited) {
      const int count = smaller(n.visited, keys - first_key);
      load_rows<Storage>(team, in.k, block.begin + first_key, count, block.g, slot.k);
      load_rows<Storage>(team, in.v, block.begin + first_key, count, block.g, slot.v);
      visit(team, slot, q, dout_t, block, first_key - block.first, count);
    }
    const Real sigma = scale.of_query * scale.of_score;
    for (int r = 0; r < block.rows(); ++r) {
      const Real* const from = &slot.dq(r, 0);
      Storage* const to = &gradient.q(block.token(r), block.head(r), 0);
      for_each_in(team, n.W, [&](const int w) { to[w] = Storage(sigma * from[w]); });
    }
    team.team_barrier();
  }

  KOKKOS_FUNCTION void visit(const RowTeam& team, const QuerySlot<Storage>& slot,
                             const Right<Storage>& q, const Right<Storage>& dout_t,
                             const QueryBlock& block, int offset, int count) const {
    const int first =
        larger(0, offset * n.R()) / tile::column_step<Storage> * tile::column_step<Storage>;
    const int rows = block.rows() - first;
    const auto k = slot.k.block(0, 0, count, n.W);
    const auto weights = slot.weights.block(0, first, count, rows);
    const auto dscores = slot.dscores.block(0, first, count, rows);
    tile::multiply<Storage>(team, tile::left<Storage>(k), q.block(0, first, n.W, rows), weights);
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
                                tile::right<Storage>(team, Turn::plain, k, slot.keys),
                                slot.dq.block(first, 0, rows, n.W));
    team.team_barrier();
  }
};

// The gradients of k and v, (5) and (8): a team owns a block of keys of one key head and visits the
// queries from the first of them on, with all heads that read the key head: their sum is part of
// the product, in the order of the rows.
template <class Storage>
struct KeyGradient : AttentionBackward<Storage> {
  using Real = Accum<Storage>;
  using Base = AttentionBackward<Storage>;
  using Base::delta, Base::documents, Base::dout, Base::gradient, Base::in, Base::lse, Base::n,
      Base::scale, Base::work;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int in_block = documents.count * n.G;
    const int units = blocks_of(documents.longest, n.own) * in_block;
    TileSpace<Real> space{&work.slots(team.league_rank(), 0), 0};
    const KeySlot<Storage> slot(space, n);
    for (int unit = take_unit(team, work.next); unit < units; unit = take_unit(team, work.next)) {
      const int first_key = unit / in_block * n.own;
      const int document = unit % in_block / n.G;
      const int begin = documents.begin(document);
      const int length = documents.begin(document + 1) - begin;
      if (first_key < length) {
        walk(team, slot, begin, length, first_key, unit % n.G);
      }
    }
  }

  KOKKOS_FUNCTION void walk(const RowTeam& team, const KeySlot<Storage>& slot, int begin,
                            int length, int first_key, int g) const {
    const int count = smaller(n.own, length - first_key), tokens = n.tokens_in(n.visited);
    const auto owned = slot.rows.block(0, 0, count, n.W);
    load_rows<Storage>(team, in.k, begin + first_key, count, g, owned);
    const auto k_t = tile::right<Storage>(team, Turn::turned, owned, slot.k_t);
    load_rows<Storage>(team, in.v, begin + first_key, count, g, owned);
    const auto v_t = tile::right<Storage>(team, Turn::turned, owned, slot.v_t);
    clear(team, slot.dk.block(0, 0, count, n.W));
    clear(team, slot.dv.block(0, 0, count, n.W));
    for (int index = first_key / tokens; index * tokens < length; ++index) {
      const QueryBlock block = query_block(begin, length, index, tokens, g, n.R());
      load_queries<Storage>(team, in.q, block, scale.of_query, slot.q);
      load_queries<Storage>(team, dout, block, Real(1), slot.dout);
      visit(team, slot, k_t, v_t, block, first_key - block.first, count);
    }
    for (int j = 0; j < count; ++j) {
      const int t = begin + first_key + j;
      const Real* const dk = &slot.dk(j, 0);
      const Real* const dv = &slot.dv(j, 0);
      Storage* const k_place = &gradient.k(t, g, 0);
      Storage* const v_place = &gradient.v(t, g, 0);
      for_each_in(team, n.W, [&](const int w) { k_place[w] = Storage(scale.of_score * dk[w]); });
      for_each_in(team, n.W, [&](const int w) { v_place[w] = Storage(dv[w]); });
    }
    team.team_barrier();
  }

  // Rows of tokens before the first key and keys behind the last token are left out.
  KOKKOS_FUNCTION void visit(const RowTeam& team, const KeySlot<Storage>& slot,
                             const Right<Storage>& k_t, const Right<Storage>& v_t,
                             const QueryBlock& block, int offset, int owned) const {
    const int first = larger(0, offset * n.R()), rows = block.rows() - first;
    const int count = smaller(owned, block.tokens - offset);
    const auto q = slot.q.block(first, 0, rows, n.W);
    const auto row_dout = slot.dout.block(first, 0, rows, n.W);
    const auto weights = slot.weights.block(first, 0, rows, count);
    const auto dscores = slot.dscores.block(first, 0, rows, count);
    tile::multiply<Storage>(team, tile::left<Storage>(q), k_t.block(0, 0, n.W, count), weights);
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
                                tile::right<Storage>(team, Turn::plain, q, slot.visitors),
                                slot.dk.block(0, 0, count, n.W));
    team.team_barrier();
  }
};

}  // namespace

template <class Storage>
void attention_backward(const Exec& exec, const Documents& documents, const AttentionTiles& tiles,
                        const AttentionInput<Storage>& in, const Tensor<const Storage, 3>& dout,
                        const Tensor<const Accum<Storage>, 2>& lse,
                        const Tensor<const Accum<Storage>, 2>& delta,
                        const AttentionGradient<Storage>& gradient,
                        const AttentionWork<Accum<Storage>>& work) {
  const Geometry n = geometry_of<Storage>(in, tiles);
  const AttentionBackward<Storage> operands{
      documents, n, in, dout, lse, delta, gradient, work, Scale<Storage>(n.W)};
  const auto policy = row_policy(exec, work.slots.extent_int(0));
  reset(exec, work.next);
  Kokkos::parallel_for("attention::query_gradient", policy, QueryGradient<Storage>{operands});
  reset(exec, work.next);
  Kokkos::parallel_for("attention::key_gradient", policy, KeyGradient<Storage>{operands});
}

#define QNEXT_INSTANTIATE(Storage)                                                          \
  template void attention_backward<Storage>(                                                \
      const Exec&, const Documents&, const AttentionTiles&, const AttentionInput<Storage>&, \
      const Tensor<const Storage, 3>&, const Tensor<const Accum<Storage>, 2>&,              \
      const Tensor<const Accum<Storage>, 2>&, const AttentionGradient<Storage>&,            \
      const AttentionWork<Accum<Storage>>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
