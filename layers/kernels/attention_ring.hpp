// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/context_share.hpp"
#include "layers/kernels/attention.hpp"

/// Attention of queries to keys that pass by, one rank's after another's. What a query has of the
/// keys so far is carried from call to call; layers/README.md, (2) to (4).
namespace qnext {

/// An online softmax that goes on. T queries, H heads of width W.
template <class Real>
struct AttentionCarry {
  Tensor<Real, 3> out;      // (T, H, W)  sum of exp(score - maximum) v
  Tensor<Real, 2> maximum;  // (T, H)     of the scores
  Tensor<Real, 2> sum;      // (T, H)     of exp(score - maximum)
};

/// No key was seen.
template <class Real>
void attention_ring_begin(const Exec& exec, const AttentionCarry<Real>& carry);

/// The queries of each line see its keys.
template <class Storage>
void attention_ring_visit(const Exec& exec, const RunPairs& pairs, const AttentionTiles& tiles,
                          const AttentionInput<Storage>& in,
                          const AttentionCarry<Accum<Storage>>& carry,
                          const AttentionWork<Accum<Storage>>& work);

/// carry.out becomes the mean of the values, carry.maximum the log of the sum of the exponentials.
template <class Real>
void attention_ring_end(const Exec& exec, const AttentionCarry<Real>& carry);

/// out = attended sigmoid(gate), the gate behind the query in `projected`; attended without one.
template <class Storage>
void attention_gate(const Exec& exec, const Tensor<const Accum<Storage>, 3>& attended,
                    const Tensor<const Storage, 3>& projected, const Tensor<Storage, 3>& out);

/// What backward reads beside the queries and the keys that pass by.
template <class Storage>
struct AttentionRingRows {
  Tensor<const Storage, 3> dout;          // (T, H, W)
  Tensor<const Accum<Storage>, 2> lse;    // (T, H)
  Tensor<const Accum<Storage>, 2> delta;  // (T, H)
};

/// Adds the gradients of each line to dq, which is a sum over the keys that pass by.
template <class Storage>
void attention_ring_query_gradient(const Exec& exec, const RunPairs& pairs,
                                   const AttentionTiles& tiles, const AttentionInput<Storage>& in,
                                   const AttentionRingRows<Storage>& rows,
                                   const Tensor<Accum<Storage>, 3>& dq,
                                   const AttentionWork<Accum<Storage>>& work);

/// The same to dk and dv, which are sums over the ranks that the keys pass.
template <class Storage>
void attention_ring_key_gradient(const Exec& exec, const RunPairs& pairs,
                                 const AttentionTiles& tiles, const AttentionInput<Storage>& in,
                                 const AttentionRingRows<Storage>& rows,
                                 const Tensor<Accum<Storage>, 3>& dk,
                                 const Tensor<Accum<Storage>, 3>& dv,
                                 const AttentionWork<Accum<Storage>>& work);

/// to = from, rounded if To is narrower. `to` may have longer rows.
template <class From, class To>
void attention_copy(const Exec& exec, const Tensor<const From, 3>& from, const Tensor<To, 3>& to);

}  // namespace qnext
