// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/attention_backward_walk.hpp"

namespace qnext {
namespace {

using namespace attention;

// The gradient of q, (7): a team owns a block of query tokens with the heads of one key head and
// visits the keys. The longest blocks come first.
template <class Storage>
struct QueryGradient {
  using Real = Accum<Storage>;

  Documents documents;
  BackwardWalk<Storage> walk;
  Tensor<Storage, 3> dq;
  AttentionWork<Real> work;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const Geometry& n = walk.n;
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
        store(team, slot,
              walk.own_queries(team, slot, {begin, length, begin, length, 0}, index, unit % n.G));
      }
    }
  }

  KOKKOS_FUNCTION void store(const RowTeam& team, const QuerySlot<Storage>& slot,
                             const QueryBlock& block) const {
    const Real sigma = walk.scale.of_query * walk.scale.of_score;
    for (int r = 0; r < block.rows(); ++r) {
      const Real* const from = &slot.dq(r, 0);
      Storage* const to = &dq(block.token(r), block.head(r), 0);
      for_each_in(team, walk.n.W, [&](const int w) { to[w] = Storage(sigma * from[w]); });
    }
    team.team_barrier();
  }
};

// The gradients of k and v, (5) and (8): a team owns a block of keys of one key head and visits the
// queries from the first of them on, with all heads that read the key head: their sum is part of
// the product, in the order of the rows.
template <class Storage>
struct KeyGradient {
  using Real = Accum<Storage>;

  Documents documents;
  BackwardWalk<Storage> walk;
  Tensor<Storage, 3> dk;
  Tensor<Storage, 3> dv;
  AttentionWork<Real> work;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const Geometry& n = walk.n;
    const int in_block = documents.count * n.G;
    const int units = blocks_of(documents.longest, n.own) * in_block;
    TileSpace<Real> space{&work.slots(team.league_rank(), 0), 0};
    const KeySlot<Storage> slot(space, n);
    for (int unit = take_unit(team, work.next); unit < units; unit = take_unit(team, work.next)) {
      const int first_key = unit / in_block * n.own;
      const int document = unit % in_block / n.G, g = unit % n.G;
      const int begin = documents.begin(document);
      const int length = documents.begin(document + 1) - begin;
      if (first_key < length) {
        const int count = smaller(n.own, length - first_key);
        walk.own_keys(team, slot, {begin, length, begin, length, 0}, first_key, count, g);
        store(team, slot, begin + first_key, count, g);
      }
    }
  }

  KOKKOS_FUNCTION void store(const RowTeam& team, const KeySlot<Storage>& slot, int first,
                             int count, int g) const {
    const Real of_score = walk.scale.of_score;
    for (int j = 0; j < count; ++j) {
      const Real* const key = &slot.dk(j, 0);
      const Real* const value = &slot.dv(j, 0);
      Storage* const key_place = &dk(first + j, g, 0);
      Storage* const value_place = &dv(first + j, g, 0);
      for_each_in(team, walk.n.W, [&](const int w) { key_place[w] = Storage(of_score * key[w]); });
      for_each_in(team, walk.n.W, [&](const int w) { value_place[w] = Storage(value[w]); });
    }
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
  const BackwardWalk<Storage> walk{n, Scale<Storage>(n.W), in.q, in.k, in.v, dout, lse, delta};
  const auto policy = row_policy(exec, work.slots.extent_int(0));
  reset(exec, work.next);
  Kokkos::parallel_for("attention::query_gradient", policy,
                       QueryGradient<Storage>{documents, walk, gradient.q, work});
  reset(exec, work.next);
  Kokkos::parallel_for("attention::key_gradient", policy,
                       KeyGradient<Storage>{documents, walk, gradient.k, gradient.v, work});
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
