// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "layers/kernels/attention_forward_walk.hpp"

namespace qnext {
namespace {

using namespace attention;

// A team takes a block of query tokens with all heads of one key head and visits the keys, so that
// a tile of keys and values is loaded once for all of them. The longest blocks come first. Where
// queries are few (decoding), the keys of a block are split over several teams, and a team takes
// all heads of a token, whose keys lie in one run of memory: there the cache is all that counts.
// Tokens of a block whose keys are cut at other places then come one after the other.
template <class Storage>
struct AttentionForward : ForwardWalk<Storage> {
  using Real = Accum<Storage>;
  using Walk = ForwardWalk<Storage>;
  using Walk::begin_rows, Walk::group_columns, Walk::groups, Walk::n, Walk::scale, Walk::visit;

  Documents documents;
  AttentionInput<Storage> in;
  Tensor<const Storage, 3> projected;
  Tensor<Storage, 3> out;
  Tensor<Real, 2> lse;
  AttentionWork<Real> work;
  int splits;

  KOKKOS_FUNCTION int query_blocks() const {
    return blocks_of(documents.longest, n.tokens_in(n.own));
  }

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int in_split = n.G / groups;
    const int in_block = documents.count * splits * in_split;
    const int units = query_blocks() * in_block;
    TileSpace<Real> space{&work.slots(team.league_rank(), 0), 0};
    const ForwardSlot<Storage> slot(space, n, groups);
    for (int unit = take_unit(team, work.next); unit < units; unit = take_unit(team, work.next)) {
      const int index = query_blocks() - 1 - unit / in_block;
      const int document = unit % in_block / (splits * in_split);
      const int split = unit % (splits * in_split) / in_split;
      const int begin = documents.begin(document);
      const int length = documents.begin(document + 1) - begin;
      if (index * n.tokens_in(n.own) < length) {
        auto block = query_block(begin, length, index, n.tokens_in(n.own), unit % in_split, n.R());
        block.groups = groups;
        attend(team, slot, document, split, block);
      }
    }
  }

  KOKKOS_FUNCTION int cached_keys(int begin) const {
    return in.cached_k.extent(0) == 0 ? 0 : documents.position(begin);
  }

  KOKKOS_FUNCTION void attend(const RowTeam& team, const ForwardSlot<Storage>& slot, int document,
                              int split, const QueryBlock& block) const {
    const int earlier = cached_keys(block.begin) + block.first;
    const int keys = earlier + block.tokens;
    const int part = splits == 1 ? keys : keys_of_split(keys, n.visited);
    if (splits == 1 || part == keys_of_split(earlier + 1, n.visited)) {
      attend_part(team, slot, document, split, block, split * part,
                  smaller(keys, (split + 1) * part));
      return;
    }
    for (int i = 0; i < block.tokens; ++i) {
      QueryBlock token = block;
      token.first += i;
      token.tokens = 1;
      const int own = earlier + i + 1, own_part = keys_of_split(own, n.visited);
      attend_part(team, slot, document, split, token, split * own_part,
                  smaller(own, (split + 1) * own_part));
    }
  }

  // Keys [begin, end) of the document.
  KOKKOS_FUNCTION void attend_part(const RowTeam& team, const ForwardSlot<Storage>& slot,
                                   int document, int split, const QueryBlock& block, int begin,
                                   int end) const {
    if (begin >= end) {
      return;
    }
    const int cached = cached_keys(block.begin);
    load_queries<Storage>(team, in.q, block, scale.of_query, slot.q);
    begin_rows(team, slot, block);
    for (int first_key = begin; first_key < end; first_key += n.visited) {
      const int count = smaller(n.visited, end - first_key);
      load_keys(team, slot, document, block, cached, first_key, count);
      visit(team, slot, block, first_key - cached - block.first, count);
    }
    leave(team, slot, block, split);
  }

  KOKKOS_FUNCTION void load_keys(const RowTeam& team, const ForwardSlot<Storage>& slot,
                                 int document, const QueryBlock& block, int cached, int first,
                                 int count) const {
    const int row = documents.cache_row(document);
    for (int j = 0; j < count; ++j) {
      const int key = first + j;
      const bool old = key < cached;
      const int t = block.begin + key - cached;
      const Storage* const k = old ? &in.cached_k(row, key, block.g, 0) : &in.k(t, block.g, 0);
      const Storage* const v = old ? &in.cached_v(row, key, block.g, 0) : &in.v(t, block.g, 0);
      for (int i = 0; i < groups; ++i) {
        const Storage* const key = k + i * n.W;
        const Storage* const value = v + i * n.W;
        fill_row(team, &slot.k(j, i * group_columns()), n.W, [&](const int w) { return key[w]; });
        fill_row(team, &slot.v(j, i * group_columns()), n.W, [&](const int w) { return value[w]; });
      }
    }
    team.team_barrier();
  }

  KOKKOS_FUNCTION void leave(const RowTeam& team, const ForwardSlot<Storage>& slot,
                             const QueryBlock& block, int split) const {
    for (int r = 0; r < block.rows(); ++r) {
      const int t = block.token(r), h = block.head(r);
      const Real sum = slot.sum[r];
      const Real inverse = sum > Real(0) ? Real(1) / sum : sum;
      const Real row_lse = sum > Real(0) ? slot.maximum[r] + log(sum) : lowest_maximum<Real>;
      const Real* const from = &slot.out(r, 0);
      if (splits > 1) {
        const int row = split * in.q.extent_int(0) + t;
        Real* const to = &work.partial(row, h, 0);
        for_each_in(team, n.W, [&](const int w) { to[w] = from[w] * inverse; });
        Kokkos::single(Kokkos::PerTeam(team), [&] { work.partial_lse(row, h) = row_lse; });
      } else {
        store(team, t, h, [&](const int w) { return from[w] * inverse; });
        Kokkos::single(Kokkos::PerTeam(team), [&] { lse(t, h) = row_lse; });
      }
    }
    team.team_barrier();
  }

  template <class Value>
  KOKKOS_FORCEINLINE_FUNCTION void store(const RowTeam& team, int t, int h,
                                         const Value& value) const {
    Storage* const to = &out(t, h, 0);
    if (projected.extent(0) == 0) {
      for_each_in(team, n.W, [&](const int w) { to[w] = Storage(value(w)); });
    } else {
      const Storage* const gate = &projected(t, h, n.W);
      for_each_in(team, n.W, [&](const int w) {
        to[w] = Storage(value(w) * sigmoid(static_cast<Real>(gate[w])));
      });
    }
  }
};

// Joins the parts of a split softmax, in order: a team takes a token.
template <class Storage>
struct AttentionJoin {
  using Real = Accum<Storage>;

  AttentionForward<Storage> forward;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const auto& partial = forward.work.partial;
    const auto& partial_lse = forward.work.partial_lse;
    const int t = team.league_rank(), T = forward.in.q.extent_int(0);
    const int keys = forward.documents.position(t) + 1;
    const int splits = blocks_of(keys, keys_of_split(keys, forward.n.visited));
    for (int h = 0; h < forward.n.H; ++h) {
      Real highest = lowest_maximum<Real>;
      for (int s = 0; s < splits; ++s) {
        highest = max(highest, partial_lse(s * T + t, h));
      }
      Real sum = 0;
      for (int s = 0; s < splits; ++s) {
        sum += exp(partial_lse(s * T + t, h) - highest);
      }
      Real* const joined = &partial(t, h, 0);
      const Real own = exp(partial_lse(t, h) - highest) / sum;
      for_each_in(team, forward.n.W, [&](const int w) { joined[w] *= own; });
      for (int s = 1; s < splits; ++s) {
        const Real share = exp(partial_lse(s * T + t, h) - highest) / sum;
        const Real* const part = &partial(s * T + t, h, 0);
        for_each_in(team, forward.n.W, [&](const int w) { joined[w] += share * part[w]; });
      }
      forward.store(team, t, h, [&](const int w) { return joined[w]; });
      Kokkos::single(Kokkos::PerTeam(team), [&] { forward.lse(t, h) = highest + log(sum); });
    }
  }
};

}  // namespace

template <class Storage>
void attention_forward(const Exec& exec, const Documents& documents, const AttentionTiles& tiles,
                       const AttentionInput<Storage>& in, const Tensor<const Storage, 3>& projected,
                       const Tensor<Storage, 3>& out, const Tensor<Accum<Storage>, 2>& lse,
                       const AttentionWork<Accum<Storage>>& work) {
  const Geometry n = geometry_of<Storage>(in, tiles);
  const int T = in.q.extent_int(0);
  const bool cached = in.cached_k.extent(0) != 0;
  const int splits = cached && work.partial.extent(0) != 0 ? splits_of_keys : 1;
  const bool together = cached && documents.longest * n.H <= n.rows_in(n.own);
  const AttentionForward<Storage> kernel{{n, Scale<Storage>(n.W), together ? n.G : 1},
                                         documents,
                                         in,
                                         projected,
                                         out,
                                         lse,
                                         work,
                                         splits};
  reset(exec, work.next);
  Kokkos::parallel_for("attention::forward", row_policy(exec, work.slots.extent_int(0)), kernel);
  if (splits > 1) {
    Kokkos::parallel_for("attention::join", row_policy(exec, T), AttentionJoin<Storage>{kernel});
  }
}

#define QNEXT_INSTANTIATE(Storage)                                                          \
  template void attention_forward<Storage>(                                                 \
      const Exec&, const Documents&, const AttentionTiles&, const AttentionInput<Storage>&, \
      const Tensor<const Storage, 3>&, const Tensor<Storage, 3>&,                           \
      const Tensor<Accum<Storage>, 2>&, const AttentionWork<Accum<Storage>>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
