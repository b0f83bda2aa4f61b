// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/types.hpp"

namespace qnext {

/// Operands of the gated delta rule. T tokens, N documents, G key heads, H value heads, K and V
/// the key and value widths. Value head h reads key head h / (H / G).
template <class Storage>
struct DeltaRuleInput {
  Tensor<const Storage, 3> q;                 // (T, G, K)  L2-normalised and scaled by 1/sqrt(K)
  Tensor<const Storage, 3> k;                 // (T, G, K)  L2-normalised
  Tensor<const Storage, 3> v;                 // (T, H, V)
  Tensor<const Accum<Storage>, 2> log_decay;  // (T, H)     <= 0
  Tensor<const Accum<Storage>, 2> beta;       // (T, H)     in [0, 1]
};

/// Gradients of the operands; dq and dk are summed over the value heads of their key head. dq, dk
/// and dv may be the memory of q, k and v.
template <class Storage>
struct DeltaRuleGradient {
  Tensor<Storage, 3> q;                 // (T, G, K)
  Tensor<Storage, 3> k;                 // (T, G, K)
  Tensor<Storage, 3> v;                 // (T, H, V)
  Tensor<Accum<Storage>, 2> log_decay;  // (T, H)
  Tensor<Accum<Storage>, 2> beta;       // (T, H)
};

/// Extents of a delta rule and the number of tokens that are solved as one dense block: a multiple
/// of 16, at most 64.
struct DeltaRuleShape {
  int G;
  int H;
  int K;
  int V;
  int chunk;
};

/// Temporaries of the chunked forms: a slot for each team that runs at the same time.
template <class Real>
struct DeltaRuleWork {
  Tensor<Real, 2> slots;  // (slots, elements of one)
  Tensor<int, 1> next;    // (1)  the next document and key head that nobody took
};

/// Enough for forward and backward. Bounded: backward keeps the memories at the borders of at most
/// 64 chunks, and of one chunk in 64 beyond them, for each slot. `pieces`: also for those of
/// delta_rule_piece.hpp.
template <class Storage>
DeltaRuleWork<Accum<Storage>> reserve_delta_rule_work(Arena& arena, const DeltaRuleShape& shape,
                                                      const MicrobatchShape& microbatch,
                                                      bool pieces = false);

/// Advances the memory of every document over its tokens and writes what each token reads from it:
///
///     S_t = a_t S_{t-1} + k_t (beta_t (v_t - a_t S_{t-1}^T k_t))^T,    a_t = exp(log_decay_t)
///     out_t = S_t^T q_t
///
/// Document n begins with the memory in its initial row and leaves the last one in its final row,
/// or, where each is kept, that of its token i in the row final + i. These may be the same rows.
/// Exact for every length and O(T) deep: the decode path, and the yardstick of delta_rule_chunked.
template <class Storage>
void delta_rule_recurrent(const Exec& exec, const Documents& documents,
                          const DeltaRuleInput<Storage>& in,
                          const Tensor<Accum<Storage>, 4>& memory,  // (rows, H, K, V)  in and out
                          const Tensor<Storage, 3>& out,            // (T, H, V)
                          Keep keep = Keep::last);

/// The same, `chunk` tokens at a time as products of matrices. Chunks restart at every document. An
/// empty `initial` is a zero memory, an empty `final` is not wanted.
template <class Storage>
void delta_rule_chunked(const Exec& exec, const Documents& documents, int chunk,
                        const DeltaRuleInput<Storage>& in,
                        const Tensor<const Accum<Storage>, 4>& initial,  // (N, H, K, V) or empty
                        const Tensor<Storage, 3>& out,                   // (T, H, V)
                        const Tensor<Accum<Storage>, 4>& final,          // (N, H, K, V) or empty
                        const DeltaRuleWork<Accum<Storage>>& work);

/// Its adjoint. An empty `dfinal` is zero, an empty `dinitial` is not wanted.
template <class Storage>
void delta_rule_chunked_backward(
    const Exec& exec, const Documents& documents, int chunk, const DeltaRuleInput<Storage>& in,
    const Tensor<const Accum<Storage>, 4>& initial,  // (N, H, K, V) or empty
    const Tensor<const Storage, 3>& dout,            // (T, H, V)
    const Tensor<const Accum<Storage>, 4>& dfinal,   // (N, H, K, V) or empty
    const DeltaRuleGradient<Storage>& gradient,
    const Tensor<Accum<Storage>, 4>& dinitial,  // (N, H, K, V) or empty
    const DeltaRuleWork<Accum<Storage>>& work);

}  // namespace qnext
