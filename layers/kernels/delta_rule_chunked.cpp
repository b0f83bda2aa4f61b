// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/delta_rule_slot.hpp"

namespace qnext {
namespace {

using namespace delta_rule;

// A team takes one key head of one document with all its value heads, so that these share the
// products of the keys, and walks the chunks: only the memory passes from one to the next. Teams
// fetch their work from a counter, because documents differ in length.
template <class Storage>
struct ChunkedForward {
  using Real = Accum<Storage>;

  Documents documents;
  int C;
  DeltaRuleInput<Storage> in;
  Tensor<const Real, 4> initial;
  Tensor<Storage, 3> out;
  Tensor<Real, 4> final;
  DeltaRuleWork<Real> work;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int G = in.k.extent_int(1), H = in.v.extent_int(1);
    const int units = documents.count * G;
    for (int unit = take_unit(team, work.next); unit < units; unit = take_unit(team, work.next)) {
      TileSpace<Real> space{&work.slots(team.league_rank(), 0), 0};
      const ForwardSlot<Storage> slot(space, {G, H, in.k.extent_int(2), in.v.extent_int(2), C});
      walk(team, unit / G, unit % G, slot);
    }
  }

  KOKKOS_FUNCTION void walk(const RowTeam& team, int n, int g,
                            const ForwardSlot<Storage>& slot) const {
    const int R = in.v.extent_int(1) / in.k.extent_int(1);
    const int begin = documents.begin(n), end = documents.begin(n + 1);
    for (int r = 0; r < R; ++r) {
      load_memory<Real>(team, initial, documents.initial_row(n), g * R + r, slot.memory(r));
    }
    for (int index = 0; begin + index * C < end; ++index) {
      const Chunk chunk = chunk_of(begin, end, index, C);
      const auto keys = load_keys<Storage>(team, in, chunk, g, true, slot.keys);
      for (int r = 0; r < R; ++r) {
        load_head<Storage>(team, in, chunk, g * R + r, slot.keys, slot.head);
        read_and_write(team, chunk, g * R + r, keys, slot, slot.memory(r));
      }
    }
    for (int r = 0; r < R; ++r) {
      store_memory<Real>(team, slot.memory(r), documents.final_row(n), g * R + r, final);
    }
  }

  // out^T = b S^T q^T + N^T P^T, (9), and the memory after the chunk.
  KOKKOS_FUNCTION void read_and_write(const RowTeam& team, const Chunk& chunk, int h,
                                      const KeyOperands<Storage>& keys,
                                      const ForwardSlot<Storage>& slot,
                                      const Tile<Real>& memory) const {
    const int rows = chunk.rows, V = memory.rows;
    const HeadTiles<Storage>& head = slot.head;
    const auto both = slot.products.block(0, 0, V, 2 * rows);  // S^T k^T, S^T q^T
    tile::multiply<Storage>(team, tile::left<Storage>(team, Turn::plain, memory, head.memory),
                            keys.columns, both);
    const auto recalled = both.block(0, 0, V, rows), answer = both.block(0, rows, V, rows);
    solve(team, head, rows, recalled, recalled);

    decay_lower(team, head.decay, slot.keys.query_key, head.work, rows);  // P
    const auto P_t =
        tile::right<Storage>(team, Turn::turned, head.work.block(0, 0, rows, rows), head.squares);
    const auto writes =
        tile::left<Storage>(team, Turn::plain, head.write.block(0, 0, V, rows), head.rows);
    scale_columns(team, answer, head.from_begin, rows);
    multiply_upper<Storage>(team, writes, P_t, answer, rows, true);
    tile::transpose(team, answer, head.value.block(0, 0, rows, V));
    store_rows<Storage>(team, head.value, chunk, h, out);

    advance(team, keys, head, rows, memory, memory);
  }
};

}  // namespace

template <class Storage>
void delta_rule_chunked(const Exec& exec, const Documents& documents, int chunk,
                        const DeltaRuleInput<Storage>& in,
                        const Tensor<const Accum<Storage>, 4>& initial,
                        const Tensor<Storage, 3>& out, const Tensor<Accum<Storage>, 4>& final,
                        const DeltaRuleWork<Accum<Storage>>& work) {
  require_chunk(chunk);
  reset(exec, work.next);
  const ChunkedForward<Storage> kernel{documents, chunk, in, initial, out, final, work};
  Kokkos::parallel_for("delta_rule::chunked_forward", row_policy(exec, work.slots.extent_int(0)),
                       kernel);
}

#define QNEXT_INSTANTIATE(Storage)                                        \
  template void delta_rule_chunked<Storage>(                              \
      const Exec&, const Documents&, int, const DeltaRuleInput<Storage>&, \
      const Tensor<const Accum<Storage>, 4>&, const Tensor<Storage, 3>&,  \
      const Tensor<Accum<Storage>, 4>&, const DeltaRuleWork<Accum<Storage>>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
