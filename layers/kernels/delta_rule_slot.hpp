// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "layers/kernels/delta_rule_chunk.hpp"

/// The memory of one team of the chunked delta rule, and the counter that teams take work from.
namespace qnext::delta_rule {

/// All tiles of the forward walk.
template <class Storage>
struct ForwardSlot {
  using Real = Accum<Storage>;

  KeyTiles<Storage> keys;
  HeadTiles<Storage> head;
  Tile<Real> products;  // (V, 2 C)
  Tile<Real> memories;  // (R V, K)  S^T of the value heads of a key head
  int V;

  KOKKOS_INLINE_FUNCTION ForwardSlot(TileSpace<Real>& space, const DeltaRuleShape& n)
      : keys(space, n.chunk, n.K),
        head(space, n.chunk, n.K, n.V),
        products(space.take(n.V, 2 * n.chunk)),
        memories(space.take(n.H / n.G * n.V, n.K)),
        V(n.V) {}

  KOKKOS_INLINE_FUNCTION Tile<Real> memory(int r) const {
    return memories.block(r * V, 0, V, memories.columns);
  }
};

/// All tiles of the backward walk. The memories at the begin of the chunks of one segment lie in
/// `borders`, those at the begin of every segment in `kept`.
template <class Storage>
struct BackwardSlot {
  using Real = Accum<Storage>;

  KeyTiles<Storage> keys;
  HeadTiles<Storage> head;
  OperandMemory<Storage> memory_right;   // (V, K)  for S^T
  OperandMemory<Storage> dmemory_right;  // (V, K)  for dS'^T
  OperandMemory<Storage> columns;        // (C, V)  for what is turned to the left
  OperandMemory<Storage> write_right;    // (V, C)  for N^T
  OperandMemory<Storage> square;         // (C, C)  for a triangle on either side
  Tile<Real> recalled;                   // (V, C)  S^T k^T
  Tile<Real> returned;                   // (V, C)  dS'^T k^T
  Tile<Real> dwrite;                     // (V, C)  dN^T
  Tile<Storage> dout;                    // (C, V)
  Tile<Real> dq_head;                    // (C, K)
  Tile<Real> dq;                         // (C, K)
  Tile<Real> dk;                         // (C, K)
  Tile<Real> dquery_key;                 // (C, C)  sum of M over the value heads
  Tile<Real> dkey_key;                   // (C, C)  sum of beta Z
  Tile<Real> sums;                       // (8, C)
  Tile<Real> dmemories;                  // (R V, K)
  Tile<Real> kept;                       // (segments R V, K)
  Tile<Real> borders;                    // (chunks of a segment R V, K)
  int V;

  KOKKOS_INLINE_FUNCTION BackwardSlot(TileSpace<Real>& space, const DeltaRuleShape& n, int longest)
      : keys(space, n.chunk, n.K),
        head(space, n.chunk, n.K, n.V),
        memory_right(tile::take_right<Storage>(space, n.V, n.K)),
        dmemory_right(tile::take_right<Storage>(space, n.V, n.K)),
        columns(tile::take_left<Storage>(space, n.chunk, n.V)),
        write_right(tile::take_right<Storage>(space, n.V, n.chunk)),
        square(tile::take_right<Storage>(space, n.chunk, n.chunk)),
        recalled(space.take(n.V, n.chunk)),
        returned(space.take(n.V, n.chunk)),
        dwrite(space.take(n.V, n.chunk)),
        dout(tile::take_stored<Storage>(space, n.chunk, n.V)),
        dq_head(space.take(n.chunk, n.K)),
        dq(space.take(n.chunk, n.K)),
        dk(space.take(n.chunk, n.K)),
        dquery_key(space.take(n.chunk, n.chunk)),
        dkey_key(space.take(n.chunk, n.chunk)),
        sums(space.take(8, n.chunk)),
        dmemories(space.take(n.H / n.G * n.V, n.K)),
        kept(space.take(segments(n, longest) * (n.H / n.G) * n.V, n.K)),
        borders(space.take(borders_of(n, longest) * (n.H / n.G) * n.V, n.K)),
        V(n.V) {}

  KOKKOS_INLINE_FUNCTION static int chunks(const DeltaRuleShape& n, int longest) {
    return (longest + n.chunk - 1) / n.chunk;
  }
  KOKKOS_INLINE_FUNCTION static int segments(const DeltaRuleShape& n, int longest) {
    return (chunks(n, longest) + segment_chunks - 1) / segment_chunks;
  }
  KOKKOS_INLINE_FUNCTION static int borders_of(const DeltaRuleShape& n, int longest) {
    return chunks(n, longest) < segment_chunks ? chunks(n, longest) : segment_chunks;
  }

  /// Memory `index` of value head r in one of the three stacks.
  KOKKOS_INLINE_FUNCTION Tile<Real> memory(const Tile<Real>& stack, int index, int R, int r) const {
    return {stack.data + static_cast<std::int64_t>(index * R + r) * V * stack.stride, V,
            stack.columns, stack.stride};
  }
};

/// The highest chunk that fits the tiles is 64, and substitution wants multiples of 16.
void require_chunk(int chunk);

/// Sets the counter of taken work to zero.
void reset(const Exec& exec, const Tensor<int, 1>& next);

}  // namespace qnext::delta_rule
