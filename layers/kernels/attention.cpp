// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/attention.hpp"

#include "layers/kernels/attention_slot.hpp"

#include <algorithm>

namespace qnext {
namespace {

using namespace attention;

// A team takes a token with all its heads. With s = sigmoid(gate), out already holds the factor s:
// dgate = dout out (1 - s), and sum(dout out) is the same before and behind the gate.
template <class Storage>
struct GateBackward {
  using Real = Accum<Storage>;

  Tensor<const Storage, 3> projected;
  Tensor<const Storage, 3> out;
  Tensor<Storage, 3> dout;
  Tensor<Storage, 3> dprojected;
  Tensor<Real, 2> delta;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const int H = out.extent_int(1), W = out.extent_int(2);
    for (int h = 0; h < H; ++h) {
      const Storage* const y = &out(t, h, 0);
      Storage* const dy = &dout(t, h, 0);
      const Real sum = sum_over<Real>(
          team, W, [&](const int w) { return static_cast<Real>(dy[w]) * static_cast<Real>(y[w]); });
      Kokkos::single(Kokkos::PerTeam(team), [&] { delta(t, h) = sum; });
      if (projected.extent(0) != 0) {
        const Storage* const gate = &projected(t, h, W);
        Storage* const dgate = &dprojected(t, h, W);
        team.team_barrier();
        for_each_in(team, W, [&](const int w) {
          const Real s = sigmoid(static_cast<Real>(gate[w]));
          const Real gradient = static_cast<Real>(dy[w]);
          dgate[w] = Storage(gradient * static_cast<Real>(y[w]) * (Real(1) - s));
          dy[w] = Storage(gradient * s);
        });
      }
    }
  }
};

// A team takes a token.
template <class Storage>
struct Remember {
  Documents documents;
  Tensor<const Storage, 3> k;
  Tensor<const Storage, 3> v;
  Tensor<Storage, 4> cached_k;
  Tensor<Storage, 4> cached_v;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank(), place = documents.position(t);
    const int n = documents.cache_row(documents.document(t));
    const int width = k.extent_int(1) * k.extent_int(2);
    KOKKOS_ASSERT(place < cached_k.extent_int(1));
    const Storage* const key = &k(t, 0, 0);
    const Storage* const value = &v(t, 0, 0);
    Storage* const key_place = &cached_k(n, place, 0, 0);
    Storage* const value_place = &cached_v(n, place, 0, 0);
    for_each_in(team, width, [&](const int i) { key_place[i] = key[i]; });
    for_each_in(team, width, [&](const int i) { value_place[i] = value[i]; });
  }
};

}  // namespace

namespace attention {

void reset(const Exec& exec, const Tensor<int, 1>& next) {
  Kokkos::parallel_for(
      "attention::reset", Kokkos::RangePolicy<Exec>(exec, 0, 1),
      KOKKOS_LAMBDA(const int i) { next(i) = 0; });
}

}  // namespace attention

AttentionTiles AttentionTiles::usual() {
  return device_backend ? AttentionTiles{32, 32} : AttentionTiles{192, 48};
}

template <class Storage>
AttentionWork<Accum<Storage>> reserve_attention_work(Arena& arena, const AttentionHeads& shape,
                                                     const AttentionTiles& tiles,
                                                     const MicrobatchShape& microbatch) {
  using Real = Accum<Storage>;
  const Geometry n{shape.H, shape.G, shape.W, tiles.own, tiles.visited};
  TileSpace<Real> forward{nullptr, 0}, queries{nullptr, 0}, keys{nullptr, 0};
  const ForwardSlot<Storage> forward_slot(forward, n, n.G);
  const QuerySlot<Storage> query_slot(queries, n);
  const KeySlot<Storage> key_slot(keys, n);
  const int parts = microbatch.decoding && microbatch.tokens <= split_tokens
                        ? microbatch.tokens * splits_of_keys
                        : 0;
  const auto units = std::int64_t{std::max(parts, microbatch.tokens)} * shape.G;
  return {arena.reserve<Real, 2>("attention_slots", slots_for(units),
                                 std::max({forward.used, queries.used, keys.used})),
          arena.reserve<int, 1>("attention_next", 1),
          arena.reserve<Real, 3>("attention_partial", parts, shape.H, shape.W),
          arena.reserve<Real, 2>("attention_partial_lse", parts, shape.H)};
}

template <class Storage>
void attention_gate_backward(const Exec& exec, const Tensor<const Storage, 3>& projected,
                             const Tensor<const Storage, 3>& out, const Tensor<Storage, 3>& dout,
                             const Tensor<Storage, 3>& dprojected,
                             const Tensor<Accum<Storage>, 2>& delta) {
  Kokkos::parallel_for("attention::gate_backward", row_policy(exec, out.extent_int(0)),
                       GateBackward<Storage>{projected, out, dout, dprojected, delta});
}

template <class Storage>
void attention_remember(const Exec& exec, const Documents& documents,
                        const Tensor<const Storage, 3>& k, const Tensor<const Storage, 3>& v,
                        const Tensor<Storage, 4>& cached_k, const Tensor<Storage, 4>& cached_v) {
  Kokkos::parallel_for("attention::remember", row_policy(exec, k.extent_int(0)),
                       Remember<Storage>{documents, k, v, cached_k, cached_v});
}

#define QNEXT_INSTANTIATE(Storage)                                                             \
  template AttentionWork<Accum<Storage>> reserve_attention_work<Storage>(                      \
      Arena&, const AttentionHeads&, const AttentionTiles&, const MicrobatchShape&);           \
  template void attention_gate_backward<Storage>(                                              \
      const Exec&, const Tensor<const Storage, 3>&, const Tensor<const Storage, 3>&,           \
      const Tensor<Storage, 3>&, const Tensor<Storage, 3>&, const Tensor<Accum<Storage>, 2>&); \
  template void attention_remember<Storage>(                                                   \
      const Exec&, const Documents&, const Tensor<const Storage, 3>&,                          \
      const Tensor<const Storage, 3>&, const Tensor<Storage, 4>&, const Tensor<Storage, 4>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
