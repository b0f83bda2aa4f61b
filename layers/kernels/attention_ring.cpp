// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/attention_ring.hpp"

#include "layers/kernels/attention_backward_walk.hpp"
#include "layers/kernels/attention_forward_walk.hpp"

namespace qnext {
namespace {

using namespace attention;

KOKKOS_INLINE_FUNCTION Meeting meeting_of(const RunPairs& pairs, int line) {
  return {pairs.runs(line, 0), pairs.runs(line, 1), pairs.runs(line, 2), pairs.runs(line, 3),
          pairs.runs(line, 4)};
}

// A team takes a block of query tokens of a line with all heads of one key head, goes on where the
// carry ends, and leaves it.
template <class Storage>
struct RingForward {
  using Real = Accum<Storage>;

  RunPairs pairs;
  ForwardWalk<Storage> walk;
  AttentionInput<Storage> in;
  AttentionCarry<Real> carry;
  AttentionWork<Real> work;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const Geometry& n = walk.n;
    const int tokens = n.tokens_in(n.own), in_block = pairs.count * n.G;
    const int query_blocks = blocks_of(pairs.longest_queries, tokens);
    const int units = query_blocks * in_block;
    TileSpace<Real> space{&work.slots(team.league_rank(), 0), 0};
    const ForwardSlot<Storage> slot(space, n, 1);
    for (int unit = take_unit(team, work.next); unit < units; unit = take_unit(team, work.next)) {
      const int index = query_blocks - 1 - unit / in_block;
      const Meeting pair = meeting_of(pairs, unit % in_block / n.G);
      if (index * tokens < pair.queries) {
        attend(team, slot, pair,
               query_block(pair.first_query, pair.queries, index, tokens, unit % n.G, n.R()));
      }
    }
  }

  KOKKOS_FUNCTION void attend(const RowTeam& team, const ForwardSlot<Storage>& slot,
                              const Meeting& pair, const QueryBlock& block) const {
    const Geometry& n = walk.n;
    const int keys = smaller(pair.keys, block.first + block.tokens - pair.offset);
    load_queries<Storage>(team, in.q, block, walk.scale.of_query, slot.q);
    walk.begin_rows(team, slot, block);
    for (int r = 0; r < block.rows(); ++r) {
      const int t = block.token(r), h = block.head(r);
      const Real* const from = &carry.out(t, h, 0);
      Real* const to = &slot.out(r, 0);
      for_each_in(team, n.W, [&](const int w) { to[w] = from[w]; });
      Kokkos::single(Kokkos::PerTeam(team), [&] {
        slot.maximum[r] = carry.maximum(t, h);
        slot.sum[r] = carry.sum(t, h);
      });
    }
    team.team_barrier();
    for (int first = 0; first < keys; first += n.visited) {
      const int count = smaller(n.visited, keys - first);
      load_rows<Storage>(team, in.k, pair.first_key + first, count, block.g, slot.k);
      load_rows<Storage>(team, in.v, pair.first_key + first, count, block.g, slot.v);
      walk.visit(team, slot, block, pair.offset + first - block.first, count);
    }
    for (int r = 0; r < block.rows(); ++r) {
      const int t = block.token(r), h = block.head(r);
      const Real* const from = &slot.out(r, 0);
      Real* const to = &carry.out(t, h, 0);
      for_each_in(team, n.W, [&](const int w) { to[w] = from[w]; });
      Kokkos::single(Kokkos::PerTeam(team), [&] {
        carry.maximum(t, h) = slot.maximum[r];
        carry.sum(t, h) = slot.sum[r];
      });
    }
    team.team_barrier();
  }
};

// The walks of attention_backward.cpp, whose results are added: the lines of a call share neither a
// query nor a key.
template <class Storage>
struct RingQueryGradient {
  using Real = Accum<Storage>;

  RunPairs pairs;
  BackwardWalk<Storage> walk;
  Tensor<Real, 3> dq;
  AttentionWork<Real> work;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const Geometry& n = walk.n;
    const int tokens = n.tokens_in(n.own), in_block = pairs.count * n.G;
    const int query_blocks = blocks_of(pairs.longest_queries, tokens);
    const int units = query_blocks * in_block;
    const Real sigma = walk.scale.of_query * walk.scale.of_score;
    TileSpace<Real> space{&work.slots(team.league_rank(), 0), 0};
    const QuerySlot<Storage> slot(space, n);
    for (int unit = take_unit(team, work.next); unit < units; unit = take_unit(team, work.next)) {
      const int index = query_blocks - 1 - unit / in_block;
      const Meeting pair = meeting_of(pairs, unit % in_block / n.G);
      if (index * tokens < pair.queries) {
        const QueryBlock block = walk.own_queries(team, slot, pair, index, unit % n.G);
        for (int r = 0; r < block.rows(); ++r) {
          const Real* const from = &slot.dq(r, 0);
          Real* const to = &dq(block.token(r), block.head(r), 0);
          for_each_in(team, n.W, [&](const int w) { to[w] += sigma * from[w]; });
        }
        team.team_barrier();
      }
    }
  }
};

template <class Storage>
struct RingKeyGradient {
  using Real = Accum<Storage>;

  RunPairs pairs;
  BackwardWalk<Storage> walk;
  Tensor<Real, 3> dk;
  Tensor<Real, 3> dv;
  AttentionWork<Real> work;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const Geometry& n = walk.n;
    const int in_block = pairs.count * n.G;
    const int units = blocks_of(pairs.longest_keys, n.own) * in_block;
    TileSpace<Real> space{&work.slots(team.league_rank(), 0), 0};
    const KeySlot<Storage> slot(space, n);
    for (int unit = take_unit(team, work.next); unit < units; unit = take_unit(team, work.next)) {
      const int first = unit / in_block * n.own, g = unit % n.G;
      const Meeting pair = meeting_of(pairs, unit % in_block / n.G);
      if (first < pair.keys) {
        const int count = smaller(n.own, pair.keys - first);
        walk.own_keys(team, slot, pair, first, count, g);
        add(team, slot, pair.first_key + first, count, g);
      }
    }
  }

  KOKKOS_FUNCTION void add(const RowTeam& team, const KeySlot<Storage>& slot, int first, int count,
                           int g) const {
    const Real of_score = walk.scale.of_score;
    for (int j = 0; j < count; ++j) {
      const Real* const key = &slot.dk(j, 0);
      const Real* const value = &slot.dv(j, 0);
      Real* const key_place = &dk(first + j, g, 0);
      Real* const value_place = &dv(first + j, g, 0);
      for_each_in(team, walk.n.W, [&](const int w) { key_place[w] += of_score * key[w]; });
      for_each_in(team, walk.n.W, [&](const int w) { value_place[w] += value[w]; });
    }
    team.team_barrier();
  }
};

// A team takes a token with all its heads.
template <class Real>
struct RingEnd {
  AttentionCarry<Real> carry;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    for (int h = 0; h < carry.out.extent_int(1); ++h) {
      const Real inverse = Real(1) / carry.sum(t, h);
      Real* const row = &carry.out(t, h, 0);
      for_each_in(team, carry.out.extent_int(2), [&](const int w) { row[w] *= inverse; });
      Kokkos::single(Kokkos::PerTeam(team), [&] { carry.maximum(t, h) += log(carry.sum(t, h)); });
    }
  }
};

template <class Storage>
struct Gate {
  using Real = Accum<Storage>;

  Tensor<const Real, 3> attended;
  Tensor<const Storage, 3> projected;
  Tensor<Storage, 3> out;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank(), W = out.extent_int(2);
    for (int h = 0; h < out.extent_int(1); ++h) {
      const Real* const from = &attended(t, h, 0);
      Storage* const to = &out(t, h, 0);
      if (projected.extent(0) == 0) {
        for_each_in(team, W, [&](const int w) { to[w] = Storage(from[w]); });
      } else {
        const Storage* const gate = &projected(t, h, W);
        for_each_in(team, W, [&](const int w) {
          to[w] = Storage(from[w] * sigmoid(static_cast<Real>(gate[w])));
        });
      }
    }
  }
};

template <class Storage>
BackwardWalk<Storage> backward_walk(const AttentionInput<Storage>& in, const AttentionTiles& tiles,
                                    const AttentionRingRows<Storage>& rows) {
  const Geometry n = geometry_of<Storage>(in, tiles);
  return {n, Scale<Storage>(n.W), in.q, in.k, in.v, rows.dout, rows.lse, rows.delta};
}

template <class From, class To>
struct CopyHeads {
  Tensor<const From, 3> from;
  Tensor<To, 3> to;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    for (int h = 0; h < from.extent_int(1); ++h) {
      const From* const source = &from(t, h, 0);
      To* const target = &to(t, h, 0);
      for_each_in(team, from.extent_int(2), [&](const int w) { target[w] = To(source[w]); });
    }
  }
};

}  // namespace

template <class Real>
void attention_ring_begin(const Exec& exec, const AttentionCarry<Real>& carry) {
  Kokkos::deep_copy(exec, carry.out, Real(0));
  Kokkos::deep_copy(exec, carry.maximum, lowest_maximum<Real>);
  Kokkos::deep_copy(exec, carry.sum, Real(0));
}

template <class Storage>
void attention_ring_visit(const Exec& exec, const RunPairs& pairs, const AttentionTiles& tiles,
                          const AttentionInput<Storage>& in,
                          const AttentionCarry<Accum<Storage>>& carry,
                          const AttentionWork<Accum<Storage>>& work) {
  const Geometry n = geometry_of<Storage>(in, tiles);
  reset(exec, work.next);
  Kokkos::parallel_for("attention::ring_forward", row_policy(exec, work.slots.extent_int(0)),
                       RingForward<Storage>{pairs, {n, Scale<Storage>(n.W), 1}, in, carry, work});
}

template <class Real>
void attention_ring_end(const Exec& exec, const AttentionCarry<Real>& carry) {
  Kokkos::parallel_for("attention::ring_end", row_policy(exec, carry.out.extent_int(0)),
                       RingEnd<Real>{carry});
}

template <class Storage>
void attention_gate(const Exec& exec, const Tensor<const Accum<Storage>, 3>& attended,
                    const Tensor<const Storage, 3>& projected, const Tensor<Storage, 3>& out) {
  Kokkos::parallel_for("attention::gate", row_policy(exec, out.extent_int(0)),
                       Gate<Storage>{attended, projected, out});
}

template <class Storage>
void attention_ring_query_gradient(const Exec& exec, const RunPairs& pairs,
                                   const AttentionTiles& tiles, const AttentionInput<Storage>& in,
                                   const AttentionRingRows<Storage>& rows,
                                   const Tensor<Accum<Storage>, 3>& dq,
                                   const AttentionWork<Accum<Storage>>& work) {
  reset(exec, work.next);
  Kokkos::parallel_for("attention::ring_query_gradient", row_policy(exec, work.slots.extent_int(0)),
                       RingQueryGradient<Storage>{pairs, backward_walk(in, tiles, rows), dq, work});
}

template <class Storage>
void attention_ring_key_gradient(const Exec& exec, const RunPairs& pairs,
                                 const AttentionTiles& tiles, const AttentionInput<Storage>& in,
                                 const AttentionRingRows<Storage>& rows,
                                 const Tensor<Accum<Storage>, 3>& dk,
                                 const Tensor<Accum<Storage>, 3>& dv,
                                 const AttentionWork<Accum<Storage>>& work) {
  reset(exec, work.next);
  Kokkos::parallel_for(
      "attention::ring_key_gradient", row_policy(exec, work.slots.extent_int(0)),
      RingKeyGradient<Storage>{pairs, backward_walk(in, tiles, rows), dk, dv, work});
}

template <class From, class To>
void attention_copy(const Exec& exec, const Tensor<const From, 3>& from, const Tensor<To, 3>& to) {
  Kokkos::parallel_for("attention::copy", row_policy(exec, from.extent_int(0)),
                       CopyHeads<From, To>{from, to});
}

template void attention_copy<bf16, bf16>(const Exec&, const Tensor<const bf16, 3>&,
                                         const Tensor<bf16, 3>&);
template void attention_copy<float, bf16>(const Exec&, const Tensor<const float, 3>&,
                                          const Tensor<bf16, 3>&);
template void attention_copy<float, float>(const Exec&, const Tensor<const float, 3>&,
                                           const Tensor<float, 3>&);
template void attention_copy<double, double>(const Exec&, const Tensor<const double, 3>&,
                                             const Tensor<double, 3>&);

#define QNEXT_INSTANTIATE(Real)                                                       \
  template void attention_ring_begin<Real>(const Exec&, const AttentionCarry<Real>&); \
  template void attention_ring_end<Real>(const Exec&, const AttentionCarry<Real>&);
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

#define QNEXT_INSTANTIATE(Storage)                                                           \
  template void attention_ring_visit<Storage>(                                               \
      const Exec&, const RunPairs&, const AttentionTiles&, const AttentionInput<Storage>&,   \
      const AttentionCarry<Accum<Storage>>&, const AttentionWork<Accum<Storage>>&);          \
  template void attention_gate<Storage>(const Exec&, const Tensor<const Accum<Storage>, 3>&, \
                                        const Tensor<const Storage, 3>&,                     \
                                        const Tensor<Storage, 3>&);                          \
  template void attention_ring_query_gradient<Storage>(                                      \
      const Exec&, const RunPairs&, const AttentionTiles&, const AttentionInput<Storage>&,   \
      const AttentionRingRows<Storage>&, const Tensor<Accum<Storage>, 3>&,                   \
      const AttentionWork<Accum<Storage>>&);                                                 \
  template void attention_ring_key_gradient<Storage>(                                        \
      const Exec&, const RunPairs&, const AttentionTiles&, const AttentionInput<Storage>&,   \
      const AttentionRingRows<Storage>&, const Tensor<Accum<Storage>, 3>&,                   \
      const Tensor<Accum<Storage>, 3>&, const AttentionWork<Accum<Storage>>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
