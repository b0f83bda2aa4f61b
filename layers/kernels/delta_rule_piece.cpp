// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/delta_rule_piece.hpp"

#include "layers/kernels/delta_rule_slot.hpp"

#include <algorithm>

namespace qnext {
namespace {

using namespace delta_rule;

// The tiles of a walk that carries the memory and, below it, the transition: V + K rows.
template <class Storage>
struct PieceSlot {
  using Real = Accum<Storage>;

  KeyTiles<Storage> keys;
  HeadTiles<Storage> head;
  Tile<Real> recalled;  // (V + K, C)
  Tile<Real> memories;  // (R (V + K), K)

  KOKKOS_INLINE_FUNCTION PieceSlot(TileSpace<Real>& space, const DeltaRuleShape& n)
      : keys(space, n.chunk, n.K),
        head(space, n.chunk, n.K, n.V + n.K),
        recalled(space.take(n.V + n.K, n.chunk)),
        memories(space.take(n.H / n.G * (n.V + n.K), n.K)) {}

  /// The system of a head with so many of these rows.
  KOKKOS_INLINE_FUNCTION HeadTiles<Storage> head_of(int rows) const {
    HeadTiles<Storage> part = head;
    part.error = head.error.block(0, 0, rows, head.error.columns);
    part.write = head.write.block(0, 0, rows, head.write.columns);
    return part;
  }
};

// The tiles of the walk back that carries the gradient of the memory.
template <class Storage>
struct AdjointSlot {
  using Real = Accum<Storage>;

  KeyTiles<Storage> keys;
  HeadTiles<Storage> head;
  OperandMemory<Storage> square;  // (C, C)
  Tile<Real> returned;            // (V, C)
  Tile<Real> dwrite;              // (V, C)
  Tile<Storage> dout;             // (C, V)
  Tile<Real> dmemories;           // (R V, K)

  KOKKOS_INLINE_FUNCTION AdjointSlot(TileSpace<Real>& space, const DeltaRuleShape& n)
      : keys(space, n.chunk, n.K),
        head(space, n.chunk, n.K, n.V),
        square(tile::take_right<Storage>(space, n.chunk, n.chunk)),
        returned(space.take(n.V, n.chunk)),
        dwrite(space.take(n.V, n.chunk)),
        dout(tile::take_stored<Storage>(space, n.chunk, n.V)),
        dmemories(space.take(n.H / n.G * n.V, n.K)) {}
};

// A team takes one key head of one document, as in the forward walk. The columns of the transition
// are memories of a rule without values that begins with the identity: rows V ... V + K - 1 of a
// tile that lies transposed.
template <class Storage>
struct PieceForward {
  using Real = Accum<Storage>;

  Documents documents;
  int C;
  DeltaRuleInput<Storage> in;
  DeltaRulePiece<Real> piece;
  DeltaRuleWork<Real> work;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int G = in.k.extent_int(1);
    const int units = documents.count * G;
    const DeltaRuleShape shape{G, in.v.extent_int(1), in.k.extent_int(2), in.v.extent_int(2), C};
    for (int unit = take_unit(team, work.next); unit < units; unit = take_unit(team, work.next)) {
      TileSpace<Real> space{&work.slots(team.league_rank(), 0), 0};
      const PieceSlot<Storage> slot(space, shape);
      if (documents.final_row(unit / G) >= 0) {
        walk(team, unit / G, unit % G, slot);
      }
    }
  }

  KOKKOS_FUNCTION void walk(const RowTeam& team, int n, int g,
                            const PieceSlot<Storage>& slot) const {
    const int K = in.k.extent_int(2), V = in.v.extent_int(2);
    const int R = in.v.extent_int(1) / in.k.extent_int(1);
    const int row = documents.final_row(n);
    const bool whole = documents.initial_row(n) >= 0;
    const int columns = whole ? V + K : V;
    const auto memory = [&](int r) { return slot.memories.block(r * (V + K), 0, columns, K); };
    for (int r = 0; r < R; ++r) {
      const auto tile = memory(r);
      for_each_element(team, columns, K, [&](const int i, const int j) {
        tile(i, j) = i == V + j ? Real(1) : Real(0);
      });
    }
    const int begin = documents.begin(n), end = documents.begin(n + 1);
    for (int index = 0; begin + index * C < end; ++index) {
      const Chunk chunk = chunk_of(begin, end, index, C);
      const auto keys = load_keys<Storage>(team, in, chunk, g, false, slot.keys);
      for (int r = 0; r < R; ++r) {
        const auto head = slot.head_of(columns);
        load_head<Storage>(team, in, chunk, g * R + r, slot.keys, head);
        tile::fill(team, head.error.block(V, 0, columns - V, chunk.rows), Real(0));
        const auto recalled = slot.recalled.block(0, 0, columns, chunk.rows);
        tile::multiply<Storage>(team,
                                tile::left<Storage>(team, Turn::plain, memory(r), head.memory),
                                keys.columns, recalled);
        solve<Storage>(team, head, chunk.rows, recalled, recalled);
        advance<Storage>(team, keys, head, chunk.rows, memory(r), memory(r));
      }
    }
    for (int r = 0; r < R; ++r) {
      store_memory<Real>(team, memory(r).block(0, 0, V, K), row, g * R + r, piece.final);
      if (whole) {
        store_memory<Real>(team, memory(r).block(V, 0, K, K), row, g * R + r, piece.transition);
      }
    }
  }
};

// The walk of ChunkedBackward without what needs the memory itself: (13), (17) and (22).
template <class Storage>
struct PieceAdjoint {
  using Real = Accum<Storage>;

  Documents documents;
  int C;
  DeltaRuleInput<Storage> in;
  Tensor<const Storage, 3> dout;
  Tensor<Real, 4> dinitial;
  DeltaRuleWork<Real> work;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int G = in.k.extent_int(1);
    const int units = documents.count * G;
    const DeltaRuleShape shape{G, in.v.extent_int(1), in.k.extent_int(2), in.v.extent_int(2), C};
    for (int unit = take_unit(team, work.next); unit < units; unit = take_unit(team, work.next)) {
      TileSpace<Real> space{&work.slots(team.league_rank(), 0), 0};
      const AdjointSlot<Storage> slot(space, shape);
      if (documents.initial_row(unit / G) >= 0) {
        walk(team, unit / G, unit % G, slot);
      }
    }
  }

  KOKKOS_FUNCTION void walk(const RowTeam& team, int n, int g,
                            const AdjointSlot<Storage>& slot) const {
    const int K = in.k.extent_int(2), V = in.v.extent_int(2);
    const int R = in.v.extent_int(1) / in.k.extent_int(1);
    const int begin = documents.begin(n), end = documents.begin(n + 1);
    tile::fill(team, slot.dmemories, Real(0));
    for (int index = (end - begin + C - 1) / C - 1; index >= 0; --index) {
      const Chunk chunk = chunk_of(begin, end, index, C);
      const auto keys = load_keys<Storage>(team, in, chunk, g, true, slot.keys);
      for (int r = 0; r < R; ++r) {
        load_head<Storage>(team, in, chunk, g * R + r, slot.keys, slot.head);
        load_rows<Storage>(team, dout, chunk, g * R + r, slot.dout);
        step_back(team, chunk.rows, keys, slot, slot.dmemories.block(r * V, 0, V, K));
      }
    }
    for (int r = 0; r < R; ++r) {
      store_memory<Real>(team, slot.dmemories.block(r * V, 0, V, K), documents.initial_row(n),
                         g * R + r, dinitial);
    }
  }

  KOKKOS_FUNCTION void step_back(const RowTeam& team, int rows, const KeyOperands<Storage>& keys,
                                 const AdjointSlot<Storage>& slot,
                                 const Tile<Real>& dmemory) const {
    const int K = dmemory.columns, V = dmemory.rows;
    const HeadTiles<Storage>& head = slot.head;
    const auto returned = slot.returned.block(0, 0, V, rows);
    const auto dwrite = slot.dwrite.block(0, 0, V, rows);
    tile::multiply<Storage>(team, tile::left<Storage>(team, Turn::plain, dmemory, head.memory),
                            keys.columns.block(0, 0, K, rows), returned);
    decay_lower(team, head.decay, slot.keys.query_key, head.work, rows);  // P
    for_each_element(team, V, rows, [&](const int v, const int i) {
      dwrite(v, i) = head.to_end[i] * returned(v, i);
    });
    multiply_lower<Storage>(
        team, tile::left<Storage>(team, Turn::turned, slot.dout.block(0, 0, rows, V), head.rows),
        tile::right<Storage>(team, Turn::plain, head.work.block(0, 0, rows, rows), slot.square),
        dwrite, rows, true);
    multiply_lower<Storage>(
        team, tile::left<Storage>(team, Turn::plain, dwrite, head.rows),
        tile::right<Storage>(team, Turn::plain, head.inverse.block(0, 0, rows, rows), slot.square),
        returned, rows, false);
    const Real whole = head.from_begin[rows - 1];
    const auto scaled = head.value.block(0, 0, rows, V);
    for_each_element(team, rows, V, [&](const int i, const int v) {
      scaled(i, v) = static_cast<Real>(slot.dout(i, v)) * head.from_begin[i];
    });
    for_each_element(team, V, rows, [&](const int v, const int i) {
      returned(v, i) *= -head.beta[i] * head.from_begin[i];
    });
    for_each_element(team, V, K, [&](const int v, const int j) { dmemory(v, j) *= whole; });
    tile::multiply_add<Storage>(team, tile::left<Storage>(team, Turn::turned, scaled, head.rows),
                                keys.query_rows, dmemory);
    tile::multiply_add<Storage>(team, tile::left<Storage>(team, Turn::plain, returned, head.rows),
                                keys.key_rows, dmemory);
  }
};

// A team takes a row of the memory of one head.
template <class Real>
struct Pass {
  Tensor<const Real, 4> transition;
  bool transposed;
  Tensor<const Real, 4> from;
  Tensor<Real, 4> to;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int H = to.extent_int(1), K = to.extent_int(2), V = to.extent_int(3);
    const int i = team.league_rank() % K, h = team.league_rank() / K % H;
    const int s = team.league_rank() / K / H;
    Real* const row = &to(s, h, i, 0);
    for (int j = 0; j < K; ++j) {
      const Real factor = transposed ? transition(s, h, j, i) : transition(s, h, i, j);
      const Real* const other = &from(s, h, j, 0);
      for_each_in(team, V, [&](const int v) { row[v] += factor * other[v]; });
    }
  }
};

}  // namespace

template <class Storage>
std::int64_t delta_rule_piece_slot(const DeltaRuleShape& shape) {
  TileSpace<Accum<Storage>> forward{nullptr, 0}, adjoint{nullptr, 0};
  const PieceSlot<Storage> for_forward(forward, shape);
  const AdjointSlot<Storage> for_adjoint(adjoint, shape);
  return std::max(forward.used, adjoint.used);
}

template <class Storage>
void delta_rule_piece(const Exec& exec, const Documents& documents, int chunk,
                      const DeltaRuleInput<Storage>& in,
                      const DeltaRulePiece<Accum<Storage>>& piece,
                      const DeltaRuleWork<Accum<Storage>>& work) {
  require_chunk(chunk);
  reset(exec, work.next);
  Kokkos::deep_copy(exec, piece.transition, 0);
  Kokkos::deep_copy(exec, piece.final, 0);
  Kokkos::parallel_for("delta_rule::piece", row_policy(exec, work.slots.extent_int(0)),
                       PieceForward<Storage>{documents, chunk, in, piece, work});
}

template <class Storage>
void delta_rule_piece_adjoint(const Exec& exec, const Documents& documents, int chunk,
                              const DeltaRuleInput<Storage>& in,
                              const Tensor<const Storage, 3>& dout,
                              const Tensor<Accum<Storage>, 4>& dinitial,
                              const DeltaRuleWork<Accum<Storage>>& work) {
  require_chunk(chunk);
  reset(exec, work.next);
  Kokkos::deep_copy(exec, dinitial, 0);
  Kokkos::parallel_for("delta_rule::piece_adjoint", row_policy(exec, work.slots.extent_int(0)),
                       PieceAdjoint<Storage>{documents, chunk, in, dout, dinitial, work});
}

template <class Real>
void delta_rule_pass(const Exec& exec, const Tensor<const Real, 4>& transition, bool transposed,
                     const Tensor<const Real, 4>& from, const Tensor<Real, 4>& to) {
  const int rows = to.extent_int(0) * to.extent_int(1) * to.extent_int(2);
  Kokkos::parallel_for("delta_rule::pass", row_policy(exec, rows),
                       Pass<Real>{transition, transposed, from, to});
}

template void delta_rule_pass<float>(const Exec&, const Tensor<const float, 4>&, bool,
                                     const Tensor<const float, 4>&, const Tensor<float, 4>&);
template void delta_rule_pass<double>(const Exec&, const Tensor<const double, 4>&, bool,
                                      const Tensor<const double, 4>&, const Tensor<double, 4>&);

#define QNEXT_INSTANTIATE(Storage)                                                  \
  template std::int64_t delta_rule_piece_slot<Storage>(const DeltaRuleShape&);      \
  template void delta_rule_piece<Storage>(                                          \
      const Exec&, const Documents&, int, const DeltaRuleInput<Storage>&,           \
      const DeltaRulePiece<Accum<Storage>>&, const DeltaRuleWork<Accum<Storage>>&); \
  template void delta_rule_piece_adjoint<Storage>(                                  \
      const Exec&, const Documents&, int, const DeltaRuleInput<Storage>&,           \
      const Tensor<const Storage, 3>&, const Tensor<Accum<Storage>, 4>&,            \
      const DeltaRuleWork<Accum<Storage>>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
