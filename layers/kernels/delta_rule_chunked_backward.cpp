// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/delta_rule_slot.hpp"

namespace qnext {
namespace {

using namespace delta_rule;

// The team and its work are those of the forward walk. A document is walked forward once to find
// the memories at the begin of its segments, then, from the last segment to the first, forward
// through the segment to find those at the begin of its chunks, and backward through its chunks
// with the gradient of the memory. A document of one segment needs no first walk.
template <class Storage>
struct ChunkedBackward {
  using Real = Accum<Storage>;
  using Slot = BackwardSlot<Storage>;
  using Keys = KeyOperands<Storage>;

  Documents documents;
  int C;
  DeltaRuleInput<Storage> in;
  Tensor<const Real, 4> initial;
  Tensor<const Storage, 3> dout;
  Tensor<const Real, 4> dfinal;
  DeltaRuleGradient<Storage> gradient;
  Tensor<Real, 4> dinitial;
  DeltaRuleWork<Real> work;

  KOKKOS_FUNCTION int R() const { return in.v.extent_int(1) / in.k.extent_int(1); }

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int G = in.k.extent_int(1);
    const int units = documents.count * G;
    const DeltaRuleShape shape{G, in.v.extent_int(1), in.k.extent_int(2), in.v.extent_int(2), C};
    for (int unit = take_unit(team, work.next); unit < units; unit = take_unit(team, work.next)) {
      TileSpace<Real> space{&work.slots(team.league_rank(), 0), 0};
      const Slot slot(space, shape, documents.longest);
      walk(team, unit / G, unit % G, slot);
    }
  }

  KOKKOS_FUNCTION void walk(const RowTeam& team, int n, int g, const Slot& slot) const {
    const int begin = documents.begin(n), end = documents.begin(n + 1);
    const int chunks = (end - begin + C - 1) / C;
    const int segments = (chunks + segment_chunks - 1) / segment_chunks;
    const int arrives = documents.initial_row(n), leaves = documents.final_row(n);
    for (int r = 0; r < R(); ++r) {
      load_memory<Real>(team, initial, arrives, g * R() + r, slot.memory(slot.kept, 0, R(), r));
      load_memory<Real>(team, dfinal, leaves, g * R() + r, slot.memory(slot.dmemories, 0, R(), r));
    }
    for (int segment = 0; segment + 1 < segments; ++segment) {
      find_borders(team, n, g, segment, true, slot);
    }
    for (int segment = segments - 1; segment >= 0; --segment) {
      find_borders(team, n, g, segment, false, slot);
      const int first = segment * segment_chunks;
      const int last = chunks < first + segment_chunks ? chunks : first + segment_chunks;
      for (int index = last - 1; index >= first; --index) {
        chunk_backward(team, chunk_of(begin, end, index, C), g, index - first, slot);
      }
    }
    for (int r = 0; r < R(); ++r) {
      store_memory<Real>(team, slot.memory(slot.dmemories, 0, R(), r), arrives, g * R() + r,
                         dinitial);
    }
  }

  // The memories at the begin of all chunks of a segment and, if `beyond`, of the next segment.
  KOKKOS_FUNCTION void find_borders(const RowTeam& team, int n, int g, int segment, bool beyond,
                                    const Slot& slot) const {
    const int begin = documents.begin(n), end = documents.begin(n + 1);
    const int chunks = (end - begin + C - 1) / C;
    const int first = segment * segment_chunks;
    const int last = chunks < first + segment_chunks ? chunks : first + segment_chunks;
    for (int r = 0; r < R(); ++r) {
      const auto kept = slot.memory(slot.kept, segment, R(), r);
      const auto border = slot.memory(slot.borders, 0, R(), r);
      for_each_element(team, border.rows, border.columns,
                       [&](const int v, const int j) { border(v, j) = kept(v, j); });
    }
    for (int index = first; index < (beyond ? last : last - 1); ++index) {
      const Chunk chunk = chunk_of(begin, end, index, C);
      const bool leaves = index + 1 == last;
      const Keys keys = load_keys<Storage>(team, in, chunk, g, false, slot.keys);
      for (int r = 0; r < R(); ++r) {
        const auto border = slot.memory(slot.borders, index - first, R(), r);
        load_head<Storage>(team, in, chunk, g * R() + r, slot.keys, slot.head);
        solve_head(team, chunk.rows, border, keys, slot);
        advance(team, keys, slot.head, chunk.rows, border,
                leaves ? slot.memory(slot.kept, segment + 1, R(), r)
                       : slot.memory(slot.borders, index - first + 1, R(), r));
      }
    }
  }

  // N^T of a head whose tiles are loaded; leaves S^T k^T in `recalled`.
  KOKKOS_FUNCTION void solve_head(const RowTeam& team, int rows, const Tile<Real>& memory,
                                  const Keys& keys, const Slot& slot) const {
    const int K = memory.columns, V = memory.rows;
    const auto recalled = slot.recalled.block(0, 0, V, rows);
    tile::multiply<Storage>(team, tile::left<Storage>(team, Turn::plain, memory, slot.head.memory),
                            keys.columns.block(0, 0, K, rows), recalled);
    solve<Storage>(team, slot.head, rows, recalled, slot.dwrite);
  }

  KOKKOS_FUNCTION void chunk_backward(const RowTeam& team, const Chunk& chunk, int g, int border,
                                      const Slot& slot) const {
    const int rows = chunk.rows, K = in.k.extent_int(2);
    const Keys keys = load_keys<Storage>(team, in, chunk, g, true, slot.keys);
    const auto dq = slot.dq.block(0, 0, rows, K), dk = slot.dk.block(0, 0, rows, K);
    tile::fill(team, dq, Real(0));
    tile::fill(team, dk, Real(0));
    tile::fill(team, slot.dquery_key.block(0, 0, rows, rows), Real(0));
    tile::fill(team, slot.dkey_key.block(0, 0, rows, rows), Real(0));
    for (int r = 0; r < R(); ++r) {
      const int h = g * R() + r;
      const auto memory = slot.memory(slot.borders, border, R(), r);
      load_head<Storage>(team, in, chunk, h, slot.keys, slot.head);
      load_rows<Storage>(team, dout, chunk, h, slot.dout);
      solve_head(team, rows, memory, keys, slot);
      head_backward(team, chunk, h, keys, slot, memory, slot.memory(slot.dmemories, 0, R(), r));
    }
    add_key_products(team, rows, keys, slot, dq, dk);
    store_rows<Storage>(team, slot.dq, chunk, g, gradient.q);
    store_rows<Storage>(team, slot.dk, chunk, g, gradient.k);
  }

  // One value head: S and dS' give dS, dv, the gradients of the gates, and its part of dq, dk, M
  // and beta Z.
  KOKKOS_FUNCTION void head_backward(const RowTeam& team, const Chunk& chunk, int h,
                                     const Keys& keys, const Slot& slot, const Tile<Real>& memory,
                                     const Tile<Real>& dmemory) const {
    const int rows = chunk.rows, K = memory.columns, V = memory.rows;
    const HeadTiles<Storage>& head = slot.head;
    Real* const dbeta = &slot.sums(0, 0);
    Real* const dgamma = &slot.sums(1, 0);

    write_backward(team, rows, keys, slot, dmemory, dbeta, dgamma);
    const auto dsolved = slot.returned.block(0, 0, V, rows);
    const auto write = head.write.block(0, 0, V, rows);
    for_each_element(team, V, rows, [&](const int v, const int i) {
      slot.dwrite(v, i) = head.beta[i] * dsolved(v, i);
    });
    tile::transpose(team, slot.dwrite.block(0, 0, V, rows), head.value.block(0, 0, rows, V));
    store_rows<Storage>(team, head.value, chunk, h, gradient.v);

    triangles_backward(team, rows, slot, dbeta, dgamma);

    // dq += b dO S^T, (15), and its product with q, (21).
    const auto scaled_dout = head.value.block(0, 0, rows, V);
    for_each_element(team, rows, V, [&](const int i, const int v) {
      scaled_dout(i, v) = static_cast<Real>(slot.dout(i, v)) * head.from_begin[i];
    });
    const auto dq_head = slot.dq_head.block(0, 0, rows, K);
    const auto memory_right = tile::right<Storage>(team, Turn::plain, memory, slot.memory_right);
    tile::multiply<Storage>(team, tile::left<Storage>(team, Turn::plain, scaled_dout, slot.columns),
                            memory_right, dq_head);
    for (int i = 0; i < rows; ++i) {
      Real* const sum = &slot.dq(i, 0);
      const Real* const part = &dq_head(i, 0);
      const Storage* const query = &keys.q(i, 0);
      const Real along = sum_over<Real>(
          team, K, [&](const int j) { return part[j] * static_cast<Real>(query[j]); });
      for_each_in(team, K, [&](const int j) { sum[j] += part[j]; });
      Kokkos::single(Kokkos::PerTeam(team), [&] { dgamma[i] += along; });
    }

    // dk += c N dS'^T - beta b dE S^T, (16) and (20).
    const auto dk = slot.dk.block(0, 0, rows, K);
    scale_columns(team, write, head.to_end, rows);
    tile::multiply_add<Storage>(
        team, tile::left<Storage>(team, Turn::turned, write, slot.columns),
        tile::right<Storage>(team, Turn::plain, dmemory, slot.dmemory_right), dk);
    for_each_element(team, V, rows, [&](const int v, const int i) {
      dsolved(v, i) *= -head.beta[i] * head.from_begin[i];
    });
    tile::multiply_add<Storage>(
        team, tile::left<Storage>(team, Turn::turned, dsolved, slot.columns), memory_right, dk);

    // dS = exp(gamma_last) dS' + (b q)^T dO - (beta b k)^T dE, (22).
    const Real whole = head.from_begin[rows - 1];
    Real overlap = 0;
    for (int v = 0; v < V; ++v) {
      const Real* const s = &memory(v, 0);
      Real* const ds = &dmemory(v, 0);
      overlap += sum_over<Real>(team, K, [&](const int j) { return s[j] * ds[j]; });
      for_each_in(team, K, [&](const int j) { ds[j] *= whole; });
    }
    Kokkos::single(Kokkos::PerTeam(team), [&] { dgamma[rows - 1] += whole * overlap; });
    team.team_barrier();
    tile::multiply_add<Storage>(team,
                                tile::left<Storage>(team, Turn::turned, scaled_dout, head.rows),
                                keys.query_rows, dmemory);
    tile::multiply_add<Storage>(team, tile::left<Storage>(team, Turn::plain, dsolved, head.rows),
                                keys.key_rows, dmemory);

    store_gates(team, chunk, h, dbeta, dgamma);
  }

  // dN, (13), dE = A^T dN, (17), and their part along v of (17) and (21): begins dbeta and dgamma.
  // Leaves dE^T in `returned`.
  KOKKOS_FUNCTION void write_backward(const RowTeam& team, int rows, const Keys& keys,
                                      const Slot& slot, const Tile<Real>& dmemory, Real* dbeta,
                                      Real* dgamma) const {
    const int K = dmemory.columns, V = dmemory.rows;
    const HeadTiles<Storage>& head = slot.head;
    const auto returned = slot.returned.block(0, 0, V, rows);
    const auto dwrite = slot.dwrite.block(0, 0, V, rows);
    tile::multiply<Storage>(team, tile::left<Storage>(team, Turn::plain, dmemory, head.memory),
                            keys.columns.block(0, 0, K, rows), returned);
    decay_lower(team, head.decay, slot.keys.query_key, head.work, rows);  // P
    Real* const stored = &slot.sums(2, 0);
    for_each_in(team, rows, [&](const int i) {
      dbeta[i] = 0;
      dgamma[i] = 0;
      stored[i] = 0;
    });
    for (int v = 0; v < V; ++v) {
      Real* const dn = &dwrite(v, 0);
      const Real* const back = &returned(v, 0);
      const Real* const n = &head.write(v, 0);
      for_each_in(team, rows, [&](const int i) {
        dn[i] = head.to_end[i] * back[i];
        stored[i] += n[i] * dn[i];
      });
    }
    team.team_barrier();
    multiply_lower<Storage>(
        team, tile::left<Storage>(team, Turn::turned, slot.dout.block(0, 0, rows, V), head.rows),
        tile::right<Storage>(team, Turn::plain, head.work.block(0, 0, rows, rows), slot.square),
        dwrite, rows, true);
    multiply_lower<Storage>(
        team, tile::left<Storage>(team, Turn::plain, dwrite, head.rows),
        tile::right<Storage>(team, Turn::plain, head.inverse.block(0, 0, rows, rows), slot.square),
        returned, rows, false);
    for (int v = 0; v < V; ++v) {
      const Real* const de = &returned(v, 0);
      const Real* const error = &head.error(v, 0);
      const Real* const known = &slot.recalled(v, 0);
      for_each_in(team, rows, [&](const int i) {
        dbeta[i] += de[i] * error[i];
        dgamma[i] += de[i] * known[i];
      });
    }
    for_each_in(team, rows, [&](const int i) {
      dgamma[i] = -head.beta[i] * head.from_begin[i] * dgamma[i] - stored[i];
    });
    team.team_barrier();
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      for (int i = 0; i < rows; ++i) {
        dgamma[rows - 1] += stored[i];
      }
    });
    team.team_barrier();
  }

  // M = lower(dO N^T) D, Z = -strictly lower(dE N^T) D, (14) and (18), and what they give to the
  // gates through q k^T and k k^T, (19) and (21).
  KOKKOS_FUNCTION void triangles_backward(const RowTeam& team, int rows, const Slot& slot,
                                          Real* dbeta, Real* dgamma) const {
    const HeadTiles<Storage>& head = slot.head;
    const int V = slot.V;
    const auto write =
        tile::right<Storage>(team, Turn::plain, head.write.block(0, 0, V, rows), slot.write_right);
    multiply_to_lower<Storage>(team, tile::left<Storage>(slot.dout), write, head.work, rows, V);
    multiply_to_lower<Storage>(
        team,
        tile::left<Storage>(team, Turn::turned, slot.returned.block(0, 0, V, rows), slot.columns),
        write, head.second, rows, V);
    Real* const columns = &slot.sums(2, 0);
    for_each_in(team, rows, [&](const int j) { columns[j] = 0; });
    for (int i = 0; i < rows; ++i) {
      Real* const m = &head.work(i, 0);
      Real* const z = &head.second(i, 0);
      Real* const sum_m = &slot.dquery_key(i, 0);
      Real* const sum_z = &slot.dkey_key(i, 0);
      const Real* const decay = &head.decay(i, 0);
      const Real* const query_key = &slot.keys.query_key(i, 0);
      const Real* const key_key = &slot.keys.key_key(i, 0);
      const Real beta = head.beta[i];
      const int width = below(i, rows);
      for_each_in(team, width, [&](const int j) {
        const Real through_query = m[j] * decay[j];
        const Real through_key = j < i ? -z[j] * decay[j] : Real(0);
        sum_m[j] += through_query;
        sum_z[j] += beta * through_key;
        z[j] = through_key * key_key[j];
        m[j] = through_query * query_key[j] + beta * z[j];
        columns[j] += m[j];
      });
      team.team_barrier();
      const Real to_beta = sum_over<Real>(team, width, [&](const int j) { return z[j]; });
      const Real to_gamma = sum_over<Real>(team, width, [&](const int j) { return m[j]; });
      Kokkos::single(Kokkos::PerTeam(team), [&] {
        dbeta[i] += to_beta;
        dgamma[i] += to_gamma;
      });
    }
    team.team_barrier();
    for_each_in(team, rows, [&](const int j) { dgamma[j] -= columns[j]; });
    team.team_barrier();
  }

  // dq += M k, dk += M^T q + (beta Z + (beta Z)^T) k, (15), (16) and (19), for all value heads at
  // once.
  KOKKOS_FUNCTION void add_key_products(const RowTeam& team, int rows, const Keys& keys,
                                        const Slot& slot, const Tile<Real>& dq,
                                        const Tile<Real>& dk) const {
    const int K = dq.columns;
    const auto& work = slot.head.work;
    const auto M = slot.dquery_key.block(0, 0, rows, rows);
    const auto plain = tile::left<Storage>(team, Turn::plain, M, slot.square);
    for (int i = 0; i < rows; i += panel) {
      const int height = rows - i < panel ? rows - i : panel;
      tile::multiply_add<Storage>(team, plain.block(i, 0, height, i + height),
                                  keys.key_rows.block(0, 0, i + height, K),
                                  dq.block(i, 0, height, K));
    }
    const auto turned = tile::left<Storage>(team, Turn::turned, M, slot.square);
    for (int i = 0; i < rows; i += panel) {
      const int height = rows - i < panel ? rows - i : panel;
      tile::multiply_add<Storage>(team, turned.block(i, i, height, rows - i),
                                  keys.query_rows.block(i, 0, rows - i, K),
                                  dk.block(i, 0, height, K));
    }
    tile::transpose(team, slot.dkey_key.block(0, 0, rows, rows), work.block(0, 0, rows, rows));
    for_each_element(team, rows, rows,
                     [&](const int i, const int j) { work(i, j) += slot.dkey_key(i, j); });
    tile::multiply_add<Storage>(
        team, tile::left<Storage>(team, Turn::plain, work.block(0, 0, rows, rows), slot.square),
        keys.key_rows, dk);
  }

  // A log decay is part of every gamma behind it in its chunk, (21).
  KOKKOS_FUNCTION void store_gates(const RowTeam& team, const Chunk& chunk, int h,
                                   const Real* dbeta, const Real* dgamma) const {
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      double sum = 0.0;
      for (int i = chunk.rows - 1; i >= 0; --i) {
        sum += static_cast<double>(dgamma[i]);
        if (i < chunk.tokens) {
          gradient.log_decay(chunk.begin + i, h) = static_cast<Real>(sum);
          gradient.beta(chunk.begin + i, h) = dbeta[i];
        }
      }
    });
    team.team_barrier();
  }
};

}  // namespace

template <class Storage>
void delta_rule_chunked_backward(
    const Exec& exec, const Documents& documents, int chunk, const DeltaRuleInput<Storage>& in,
    const Tensor<const Accum<Storage>, 4>& initial, const Tensor<const Storage, 3>& dout,
    const Tensor<const Accum<Storage>, 4>& dfinal, const DeltaRuleGradient<Storage>& gradient,
    const Tensor<Accum<Storage>, 4>& dinitial, const DeltaRuleWork<Accum<Storage>>& work) {
  require_chunk(chunk);
  reset(exec, work.next);
  const ChunkedBackward<Storage> kernel{documents, chunk,    in,       initial, dout,
                                        dfinal,    gradient, dinitial, work};
  Kokkos::parallel_for("delta_rule::chunked_backward", row_policy(exec, work.slots.extent_int(0)),
                       kernel);
}

#define QNEXT_INSTANTIATE(Storage)                                               \
  template void delta_rule_chunked_backward<Storage>(                            \
      const Exec&, const Documents&, int, const DeltaRuleInput<Storage>&,        \
      const Tensor<const Accum<Storage>, 4>&, const Tensor<const Storage, 3>&,   \
      const Tensor<const Accum<Storage>, 4>&, const DeltaRuleGradient<Storage>&, \
      const Tensor<Accum<Storage>, 4>&, const DeltaRuleWork<Accum<Storage>>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
