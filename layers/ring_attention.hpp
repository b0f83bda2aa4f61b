// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/types.hpp"
#include "layers/kernels/attention_ring.hpp"
#include "parallel/half_swap.hpp"
#include "parallel/process_grid.hpp"

namespace qnext {

/// Attention of documents that lie on several context ranks. Keys and values go round in a ring;
/// queries, keys and values first change halves with the mirror rank, so that every rank has the
/// same work in every step (core/context_share.hpp), and results change back.
///
/// T tokens of this rank in S sequences, H query heads, G key/value heads, W their width. Memory is
/// linear in T. Sums go in the order of the ring, the same in every run. The next keys and values
/// travel while queries see those that are here, gradients of keys while those of queries are made.
template <class Storage>
class RingAttention {
 public:
  using Real = Accum<Storage>;

  struct Work {
    Tensor<Storage, 4> visitors[2];  // (2, T, G, W)  keys and values that are here, and that come
    Tensor<Real, 4> dvisitors[2];    // (2, T, G, W)  their gradients
    Tensor<Real, 3> out;             // (T, H, W)     then the gradient of the queries
    Tensor<Real, 2> sum;             // (T, H)
    Tensor<Real, 2> lse;             // (T, H)        of the queries that are here
    Tensor<Real, 1> half;            // of the largest tensor that is swapped
  };

  RingAttention() = default;
  RingAttention(const ProcessGrid& grid, const AttentionHeads& shape)
      : group_(grid.context), ranks_(grid.degrees.context), shape_(shape) {}

  /// One rank has all of every document: nothing below is called.
  bool alone() const { return ranks_ == 1; }

  Work reserve_work(Arena& arena, const MicrobatchShape& microbatch) const;

  /// As attention_forward. in.q is overwritten.
  void forward(const Exec& exec, const Documents& documents, const Tensor<Storage, 3>& q,
               const Tensor<const Storage, 3>& k, const Tensor<const Storage, 3>& v,
               const Tensor<const Storage, 3>& projected, const Tensor<Storage, 3>& out,
               const Tensor<Real, 2>& lse, const Work& work,
               const AttentionWork<Real>& attention) const;

  /// As attention_backward. q, dout and delta are overwritten.
  void backward(const Exec& exec, const Documents& documents, const Tensor<Storage, 3>& q,
                const Tensor<const Storage, 3>& k, const Tensor<const Storage, 3>& v,
                const Tensor<Storage, 3>& dout, const Tensor<const Real, 2>& lse,
                const Tensor<Real, 2>& delta, const AttentionGradient<Storage>& gradient,
                const Work& work, const AttentionWork<Real>& attention) const;

 private:
  template <class View>
  void swap(const Exec& exec, const Documents& documents, const View& rows, const Work& work) const;
  void begin(const Exec& exec, const Documents& documents, const Tensor<Storage, 3>& q,
             const Tensor<const Storage, 3>& k, const Tensor<const Storage, 3>& v,
             const Work& work) const;
  Transfer start_next_visitors(int step, const Work& work) const;
  AttentionInput<Storage> input(const Tensor<Storage, 3>& q,
                                const Tensor<Storage, 4>& visitors) const;

  Communicator group_;
  int ranks_ = 1;
  AttentionHeads shape_{};
};

}  // namespace qnext
