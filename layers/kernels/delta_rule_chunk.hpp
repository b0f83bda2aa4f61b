// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/math.hpp"
#include "core/slot.hpp"
#include "core/team.hpp"
#include "core/tile.hpp"
#include "core/tile_operand.hpp"
#include "layers/kernels/delta_rule.hpp"

/// What forward and backward of the chunked delta rule share: the tiles of one team, and the
/// triangular system of one chunk. Equation numbers are those of layers/README.md, "The chunked
/// delta rule"; so are the reasons why what has an extent V lies transposed.
namespace qnext::delta_rule {

using tile::Form;
using tile::Left;
using tile::OperandMemory;
using tile::Right;
using tile::Tile;
using tile::Turn;

/// Blocks of a triangular matrix that are zero are skipped by panels of this width.
inline constexpr int panel = 32;

/// Diagonal blocks of this size are inverted by substitution, larger ones by merging.
inline constexpr int substituted = 16;

/// Chunks between two memories that backward keeps for a whole document.
inline constexpr int segment_chunks = 64;

/// Some tokens of one document that are solved together: `rows` of them with padding to a multiple
/// of 16. The padding is zero, which neither decays nor writes.
struct Chunk {
  int begin;
  int tokens;
  int rows;
};

KOKKOS_INLINE_FUNCTION Chunk chunk_of(int begin, int end, int index, int chunk) {
  const int first = begin + index * chunk;
  const int tokens = end - first < chunk ? end - first : chunk;
  return {first, tokens, (tokens + substituted - 1) / substituted * substituted};
}

/// What the value heads of one key head share in a chunk.
template <class Storage>
struct KeyTiles {
  using Real = Accum<Storage>;

  Tile<Storage> rows;              // (2 C, K)  k, and behind its last row q
  OperandMemory<Storage> columns;  // (K, 2 C)  for k^T, and q^T beside it
  OperandMemory<Storage> keys;     // (C, K)  for k on the right
  OperandMemory<Storage> queries;  // (C, K)  for q on the right
  Tile<Real> key_key;              // (C, C)  lower: k_i . k_j
  Tile<Real> query_key;            // (C, C)  lower: q_i . k_j

  KOKKOS_INLINE_FUNCTION KeyTiles(TileSpace<Real>& space, int C, int K)
      : rows(tile::take_stored<Storage>(space, 2 * C, K)),
        columns(tile::take_turned_right<Storage>(space, K, 2 * C)),
        keys(tile::take_right<Storage>(space, C, K)),
        queries(tile::take_right<Storage>(space, C, K)),
        key_key(space.take(C, C)),
        query_key(space.take(C, C)) {}
};

/// The operands that the keys and queries of a chunk are.
template <class Storage>
struct KeyOperands {
  Tile<Storage> k;            // (rows, K)
  Tile<Storage> q;            // (rows, K)
  Right<Storage> columns;     // (K, rows)  k^T, and with queries (K, 2 rows)
  Right<Storage> key_rows;    // (rows, K)
  Right<Storage> query_rows;  // (rows, K), with queries
};

/// The triangular system of one value head in a chunk.
template <class Storage>
struct HeadTiles {
  using Real = Accum<Storage>;

  double* gamma;                   // (C)  sums of log_decay from the begin of the chunk, (1)
  Real* beta;                      // (C)
  Real* from_begin;                // (C)  b_i = exp(gamma_i), (2)
  Real* to_end;                    // (C)  c_i = exp(gamma_last - gamma_i), (2)
  Tile<Real> decay;                // (C, C)  D_ij, (1), zero above the diagonal
  Tile<Real> inverse;              // (C, C)  A = (1 + L)^-1
  Tile<Real> work;                 // (C, C)
  Tile<Real> second;               // (C, C)  also work
  Tile<Real> value;                // (C, V)  as stored: v, or what leaves in its place
  Tile<Real> error;                // (V, C)  R^T, R = v - b k S
  Tile<Real> write;                // (V, C)  N^T
  OperandMemory<Storage> memory;   // (V, K)  for S^T on the left
  OperandMemory<Storage> rows;     // (V, C)  for what is on the left as it lies
  OperandMemory<Storage> squares;  // (C, C)  for A^T or P^T on the right

  KOKKOS_INLINE_FUNCTION HeadTiles(TileSpace<Real>& space, int C, int K, int V)
      : gamma(reinterpret_cast<double*>(space.take(2, C).data)),
        beta(space.take(1, C).data),
        from_begin(space.take(1, C).data),
        to_end(space.take(1, C).data),
        decay(space.take(C, C)),
        inverse(space.take(C, C)),
        work(space.take(C, C)),
        second(space.take(C, C)),
        value(space.take(C, V)),
        error(space.take(V, C)),
        write(space.take(V, C)),
        memory(tile::take_left<Storage>(space, V, K)),
        rows(tile::take_left<Storage>(space, V, C)),
        squares(tile::take_turned_right<Storage>(space, C, C)) {}
};

/// Columns of row i of a lower triangle that its panel holds.
KOKKOS_INLINE_FUNCTION int below(int i, int rows) {
  const int end = (i / panel + 1) * panel;
  return end < rows ? end : rows;
}

/// f(i, j) for every element, in any order, and a barrier.
template <class F>
KOKKOS_FORCEINLINE_FUNCTION void for_each_element(const RowTeam& team, int rows, int columns,
                                                  const F& f) {
  for (int i = 0; i < rows; ++i) {
    for_each_in(team, columns, [&](const int j) { f(i, j); });
  }
  team.team_barrier();
}

/// c = a b
template <Form FormA, class Real>
KOKKOS_INLINE_FUNCTION void multiply(const RowTeam& team, const Tile<Real>& a, const Tile<Real>& b,
                                     const Tile<Real>& c) {
  tile::fill(team, c, Real(0));
  tile::multiply_add<FormA, Form::plain>(team, Real(1), a, b, c);
}

/// Rows [begin, begin + rows) of the tokens of a head as a tile of T, which is Storage or its
/// Accum, zero below `tokens`. A tile of Storage becomes one that may be an operand as it is.
template <class Storage, class T>
KOKKOS_INLINE_FUNCTION void load_rows(const RowTeam& team, const Tensor<const Storage, 3>& from,
                                      const Chunk& chunk, int head, const Tile<T>& to) {
  const int width = from.extent_int(2);
  const int whole = std::is_same_v<T, Storage> ? tile::stored_columns<Storage>(width) : width;
  for (int i = 0; i < chunk.rows; ++i) {
    T* const row = &to(i, 0);
    const int held = i < chunk.tokens ? width : 0;
    if (held > 0) {
      const Storage* const source = &from(chunk.begin + i, head, 0);
      for_each_in(team, held, [&](const int j) { row[j] = static_cast<T>(source[j]); });
    }
    for_each_in(team, whole - held, [&](const int j) { row[held + j] = T(0); });
  }
  team.team_barrier();
}

template <class Storage, class Real = Accum<Storage>>
KOKKOS_INLINE_FUNCTION void store_rows(const RowTeam& team, const Tile<Real>& from,
                                       const Chunk& chunk, int head, const Tensor<Storage, 3>& to) {
  const int width = to.extent_int(2);
  for (int i = 0; i < chunk.tokens; ++i) {
    const Real* const row = &from(i, 0);
    Storage* const target = &to(chunk.begin + i, head, 0);
    for_each_in(team, width, [&](const int j) { target[j] = Storage(row[j]); });
  }
  team.team_barrier();
}

/// The memory of the files, (K, V), into the transposed tile, or zero: without a tensor or for a
/// row below 0.
template <class Real>
KOKKOS_INLINE_FUNCTION void load_memory(const RowTeam& team, const Tensor<const Real, 4>& from,
                                        int row, int head, const Tile<Real>& to) {
  if (from.extent(0) == 0 || row < 0) {
    tile::fill(team, to, Real(0));
    return;
  }
  const Real* const source = &from(row, head, 0, 0);
  const int V = to.rows;
  for_each_element(team, V, to.columns,
                   [&](const int i, const int j) { to(i, j) = source[j * V + i]; });
}

template <class Real>
KOKKOS_INLINE_FUNCTION void store_memory(const RowTeam& team, const Tile<Real>& from, int row,
                                         int head, const Tensor<Real, 4>& to) {
  if (to.extent(0) == 0 || row < 0) {
    return;
  }
  Real* const target = &to(row, head, 0, 0);
  const int V = from.rows;
  for_each_element(team, V, from.columns,
                   [&](const int i, const int j) { target[j * V + i] = from(i, j); });
}

/// Lower blocks of c (rows, rows) = a b with a (rows, inner) and b (inner, rows). What lies above
/// them is not written.
template <class Storage, class Real = Accum<Storage>>
KOKKOS_INLINE_FUNCTION void multiply_to_lower(const RowTeam& team, const Left<Storage>& a,
                                              const Right<Storage>& b, const Tile<Real>& c,
                                              int rows, int inner) {
  for (int i = 0; i < rows; i += panel) {
    const int height = rows - i < panel ? rows - i : panel;
    tile::multiply<Storage>(team, a.block(i, 0, height, inner), b.block(0, 0, inner, i + height),
                            c.block(i, 0, height, i + height));
  }
}

/// c = a u, or c += a u, with u (rows, rows) upper triangular.
template <class Storage, class Real = Accum<Storage>>
KOKKOS_INLINE_FUNCTION void multiply_upper(const RowTeam& team, const Left<Storage>& a,
                                           const Right<Storage>& u, const Tile<Real>& c, int rows,
                                           bool add) {
  for (int j = 0; j < rows; j += panel) {
    const int width = rows - j < panel ? rows - j : panel;
    tile::multiply<Storage>(team, a.block(0, 0, c.rows, j + width), u.block(0, j, j + width, width),
                            c.block(0, j, c.rows, width), add);
  }
}

/// The same with u lower triangular.
template <class Storage, class Real = Accum<Storage>>
KOKKOS_INLINE_FUNCTION void multiply_lower(const RowTeam& team, const Left<Storage>& a,
                                           const Right<Storage>& u, const Tile<Real>& c, int rows,
                                           bool add) {
  for (int j = 0; j < rows; j += panel) {
    const int width = rows - j < panel ? rows - j : panel;
    tile::multiply<Storage>(team, a.block(0, j, c.rows, rows - j), u.block(j, j, rows - j, width),
                            c.block(0, j, c.rows, width), add);
  }
}

/// A = (1 + L)^-1 for L (rows, rows) strictly lower triangular, (6): blocks of 16 by substitution,
/// (5), row by row, then A_21 = -A_22 L_21 A_11 for blocks of 16, 32, ... `work` is overwritten.
template <class Real>
KOKKOS_INLINE_FUNCTION void invert_unit_lower(const RowTeam& team, const Tile<Real>& L,
                                              const Tile<Real>& A, const Tile<Real>& work,
                                              int rows) {
  tile::fill(team, A.block(0, 0, rows, rows), Real(0));
  for (int block = 0; block < rows; block += substituted) {
    for_each_in(team, substituted, [&](const int j) {
      for (int i = 0; i < substituted; ++i) {
        A(block + i, block + j) = i == j ? Real(1) : Real(0);
      }
    });
    for (int i = 1; i < substituted; ++i) {
      Real* const row = &A(block + i, block);
      for (int l = 0; l < i; ++l) {
        const Real factor = L(block + i, block + l);
        const Real* const solved = &A(block + l, block);
        for_each_in(team, substituted, [&](const int j) { row[j] -= factor * solved[j]; });
      }
    }
  }
  team.team_barrier();
  for (int size = substituted; size < rows; size *= 2) {
    for (int begin = 0; begin + size < rows; begin += 2 * size) {
      const int height = rows - begin - size < size ? rows - begin - size : size;
      const auto product = work.block(0, 0, height, size);
      multiply<Form::plain>(team, L.block(begin + size, begin, height, size),
                            A.block(begin, begin, size, size), product);
      tile::multiply_add<Form::plain, Form::plain>(
          team, Real(-1), A.block(begin + size, begin + size, height, height), product,
          A.block(begin + size, begin, height, size));
    }
  }
}

/// Loads the keys (and queries) of a chunk and multiplies them with each other.
template <class Storage>
KOKKOS_INLINE_FUNCTION KeyOperands<Storage> load_keys(const RowTeam& team,
                                                      const DeltaRuleInput<Storage>& in,
                                                      const Chunk& chunk, int g, bool with_queries,
                                                      const KeyTiles<Storage>& tiles) {
  const int K = in.k.extent_int(2), rows = chunk.rows;
  const auto k = tiles.rows.block(0, 0, rows, K), q = tiles.rows.block(rows, 0, rows, K);
  load_rows<Storage>(team, in.k, chunk, g, k);
  if (with_queries) {
    load_rows<Storage>(team, in.q, chunk, g, q);
  }
  const auto columns = tile::right<Storage>(
      team, Turn::turned, tiles.rows.block(0, 0, with_queries ? 2 * rows : rows, K), tiles.columns);
  const KeyOperands<Storage> keys{
      k, q, columns, tile::right<Storage>(team, Turn::plain, k, tiles.keys),
      with_queries ? tile::right<Storage>(team, Turn::plain, q, tiles.queries) : Right<Storage>{}};
  multiply_to_lower<Storage>(team, tile::left<Storage>(k), columns, tiles.key_key, rows, K);
  if (with_queries) {
    multiply_to_lower<Storage>(team, tile::left<Storage>(q), columns, tiles.query_key, rows, K);
  }
  return keys;
}

/// Gates, decays and the inverse A of one value head, (1) to (6), and its values.
template <class Storage, class Real = Accum<Storage>>
KOKKOS_INLINE_FUNCTION void load_head(const RowTeam& team, const DeltaRuleInput<Storage>& in,
                                      const Chunk& chunk, int h, const KeyTiles<Storage>& keys,
                                      const HeadTiles<Storage>& head) {
  const int rows = chunk.rows, V = in.v.extent_int(2);
  Kokkos::single(Kokkos::PerTeam(team), [&] {
    double sum = 0.0;
    for (int i = 0; i < rows; ++i) {
      sum += i < chunk.tokens ? static_cast<double>(in.log_decay(chunk.begin + i, h)) : 0.0;
      head.gamma[i] = sum;
      head.beta[i] = i < chunk.tokens ? in.beta(chunk.begin + i, h) : Real(0);
    }
  });
  team.team_barrier();
  const double* const gamma = head.gamma;
  for_each_in(team, rows, [&](const int i) {
    head.from_begin[i] = exp(static_cast<Real>(gamma[i]));
    head.to_end[i] = exp(static_cast<Real>(gamma[rows - 1] - gamma[i]));
  });
  // Above the diagonal the difference is positive and may overflow: it is clipped before exp.
  for (int i = 0; i < rows; ++i) {
    Real* const decay = &head.decay(i, 0);
    Real* const lower = &head.work(i, 0);
    const Real* const products = &keys.key_key(i, 0);
    const double own = gamma[i];
    const Real beta = head.beta[i];
    for_each_in(team, below(i, rows), [&](const int j) {
      const double difference = j < i ? own - gamma[j] : 0.0;
      const Real factor = j <= i ? exp(static_cast<Real>(difference)) : Real(0);
      decay[j] = factor;
      lower[j] = j < i ? beta * products[j] * factor : Real(0);
    });
  }
  team.team_barrier();
  invert_unit_lower(team, head.work, head.inverse, head.second, rows);
  load_rows<Storage>(team, in.v, chunk, h, head.value);
  tile::transpose(team, head.value.block(0, 0, rows, V), head.error.block(0, 0, V, rows));
}

/// From recalled = S^T k^T: R^T = v^T - b recalled, N^T = (beta R)^T A^T, (7) and (8).
template <class Storage, class Real = Accum<Storage>>
KOKKOS_INLINE_FUNCTION void solve(const RowTeam& team, const HeadTiles<Storage>& head, int rows,
                                  const Tile<Real>& recalled, const Tile<Real>& scaled) {
  const int V = head.error.rows;
  const Real* const from_begin = head.from_begin;
  const Real* const beta = head.beta;
  for (int v = 0; v < V; ++v) {
    Real* const error = &head.error(v, 0);
    Real* const target = &scaled(v, 0);
    const Real* const known = &recalled(v, 0);
    for_each_in(team, rows, [&](const int i) {
      error[i] -= from_begin[i] * known[i];
      target[i] = beta[i] * error[i];
    });
  }
  team.team_barrier();
  const auto errors =
      tile::left<Storage>(team, Turn::plain, scaled.block(0, 0, V, rows), head.rows);
  const auto inverse_t =
      tile::right<Storage>(team, Turn::turned, head.inverse.block(0, 0, rows, rows), head.squares);
  multiply_upper<Storage>(team, errors, inverse_t, head.write.block(0, 0, V, rows), rows, false);
}

/// to = decay * products, element by element, in the panels of the lower triangle.
template <class Real>
KOKKOS_INLINE_FUNCTION void decay_lower(const RowTeam& team, const Tile<Real>& decay,
                                        const Tile<Real>& products, const Tile<Real>& to,
                                        int rows) {
  for (int i = 0; i < rows; ++i) {
    Real* const row = &to(i, 0);
    const Real* const factor = &decay(i, 0);
    const Real* const product = &products(i, 0);
    for_each_in(team, below(i, rows), [&](const int j) { row[j] = factor[j] * product[j]; });
  }
  team.team_barrier();
}

/// tile(v, i) *= factor[i] for i < columns.
template <class Real>
KOKKOS_INLINE_FUNCTION void scale_columns(const RowTeam& team, const Tile<Real>& tile,
                                          const Real* factor, int columns) {
  for (int v = 0; v < tile.rows; ++v) {
    Real* const row = &tile(v, 0);
    for_each_in(team, columns, [&](const int i) { row[i] *= factor[i]; });
  }
  team.team_barrier();
}

/// S'^T = exp(gamma_last) S^T + (c N)^T k, (10). N is scaled in place; `to` may be `from`.
template <class Storage, class Real = Accum<Storage>>
KOKKOS_INLINE_FUNCTION void advance(const RowTeam& team, const KeyOperands<Storage>& keys,
                                    const HeadTiles<Storage>& head, int rows,
                                    const Tile<Real>& from, const Tile<Real>& to) {
  scale_columns(team, head.write, head.to_end, rows);
  const Real whole = head.from_begin[rows - 1];
  for (int v = 0; v < from.rows; ++v) {
    const Real* const source = &from(v, 0);
    Real* const target = &to(v, 0);
    for_each_in(team, from.columns, [&](const int j) { target[j] = whole * source[j]; });
  }
  team.team_barrier();
  const auto writes = tile::left<Storage>(team, Turn::plain,
                                          head.write.block(0, 0, head.write.rows, rows), head.rows);
  tile::multiply_add<Storage>(team, writes, keys.key_rows, to);
}

}  // namespace qnext::delta_rule
