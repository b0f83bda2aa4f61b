// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/types.hpp"

#include <cstdint>

/// Causal attention within documents, without ever holding a row of scores. T tokens, N documents,
/// H query heads, G key/value heads, R = H / G, W the width of a head. Query head h reads key head
/// h / R. Derivation: layers/README.md, "Attention by tiles".
namespace qnext {

/// How many rows the tiles of one team have. A team owns a block of `own` rows and visits blocks of
/// `visited`. Rows of queries are pairs of a token and one of the R heads that share a key head.
struct AttentionTiles {
  int own;
  int visited;

  /// Measured on AVX-512 with 2 MB of second cache, W = 64 and 256; devices are not tuned.
  static AttentionTiles usual();
};

/// Keys and values of the tokens of the row, and of earlier pieces of their documents if `cache`
/// says so: document n then begins with the position(begin(n)) tokens that the cache holds in its
/// row.
template <class Storage>
struct AttentionInput {
  Tensor<const Storage, 3> q;              // (T, H, W)  normed and rotated
  Tensor<const Storage, 3> k;              // (T, G, W)  normed and rotated
  Tensor<const Storage, 3> v;              // (T, G, W)
  Tensor<const Storage, 4> cached_k = {};  // (N, capacity, G, W) or empty
  Tensor<const Storage, 4> cached_v = {};  // (N, capacity, G, W) or empty
};

/// Temporaries: a slot for each team that runs at the same time, and partial results where the keys
/// of a few queries are split over teams.
template <class Real>
struct AttentionWork {
  Tensor<Real, 2> slots;        // (slots, elements of one)
  Tensor<int, 1> next;          // (1)  the next unit of work that nobody took
  Tensor<Real, 3> partial;      // (T splits, H, W)  empty unless decoding
  Tensor<Real, 2> partial_lse;  // (T splits, H)
};

struct AttentionHeads {
  int H;
  int G;
  int W;
};

/// Enough for forward and backward.
template <class Storage>
AttentionWork<Accum<Storage>> reserve_attention_work(Arena& arena, const AttentionHeads& shape,
                                                     const AttentionTiles& tiles,
                                                     const MicrobatchShape& microbatch);

/// out_i = sum_j p_ij v_j, p_ij = exp(q_i . k_j / sqrt(W) - lse_i) over the keys j of the document
/// up to token i, times sigmoid(gate_i) if there is a gate: it lies behind the query in
/// `projected`.
template <class Storage>
void attention_forward(const Exec& exec, const Documents& documents, const AttentionTiles& tiles,
                       const AttentionInput<Storage>& in,
                       const Tensor<const Storage, 3>& projected,  // (T, H, 2 W) or empty
                       const Tensor<Storage, 3>& out,              // (T, H, W)
                       const Tensor<Accum<Storage>, 2>& lse,       // (T, H)
                       const AttentionWork<Accum<Storage>>& work);

/// The adjoint of the gate, and delta = sum_w dout out, which does not change with the gate. dout
/// comes in as the gradient of the gated output and leaves as that of the attention itself.
template <class Storage>
void attention_gate_backward(const Exec& exec, const Tensor<const Storage, 3>& projected,
                             const Tensor<const Storage, 3>& out,      // (T, H, W)
                             const Tensor<Storage, 3>& dout,           // (T, H, W)
                             const Tensor<Storage, 3>& dprojected,     // (T, H, 2 W) or empty
                             const Tensor<Accum<Storage>, 2>& delta);  // (T, H)

/// Gradients of q, k and v, overwritten. dq may have longer rows (those of the projection).
template <class Storage>
struct AttentionGradient {
  Tensor<Storage, 3> q;  // (T, H, W or more)
  Tensor<Storage, 3> k;  // (T, G, W)
  Tensor<Storage, 3> v;  // (T, G, W)
};

/// The adjoint of the attention without gate, for documents without cached keys.
template <class Storage>
void attention_backward(const Exec& exec, const Documents& documents, const AttentionTiles& tiles,
                        const AttentionInput<Storage>& in,
                        const Tensor<const Storage, 3>& dout,          // (T, H, W)
                        const Tensor<const Accum<Storage>, 2>& lse,    // (T, H)
                        const Tensor<const Accum<Storage>, 2>& delta,  // (T, H)
                        const AttentionGradient<Storage>& gradient,
                        const AttentionWork<Accum<Storage>>& work);

/// Writes the keys and values of all tokens behind those that the cache holds of their document.
template <class Storage>
void attention_remember(const Exec& exec, const Documents& documents,
                        const Tensor<const Storage, 3>& k, const Tensor<const Storage, 3>& v,
                        const Tensor<Storage, 4>& cached_k, const Tensor<Storage, 4>& cached_v);

}  // namespace qnext
