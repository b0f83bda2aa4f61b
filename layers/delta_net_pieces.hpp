// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/types.hpp"
#include "layers/causal_conv.hpp"
#include "layers/kernels/delta_rule_piece.hpp"
#include "parallel/process_grid.hpp"

namespace qnext {

/// What documents carry from context rank to context rank through a delta net: the last inputs of
/// the convolution and the memory, and their gradients the other way.
///
/// Memories are passed on from rank to rank, but what takes time is done by all ranks at once: each
/// finds, from zero, what its piece adds to a memory and how it transforms one, and then
///
///     S_{c+1} = M_c S_c + B_c,    dS_c = M_c^T dS_{c+1} + dB_c
///
/// is one small product and one message a rank. Where a document ends inside a piece M_c is zero.
/// S sequences, H value heads, K and V their widths.
template <class Storage>
class DeltaNetPieces {
 public:
  using Real = Accum<Storage>;

  struct Work {
    Tensor<Storage, 3> tails;          // (S, taps - 1, 2GK+HV)  that leave
    Tensor<Storage, 3> arrived_tails;  // (S, taps - 1, 2GK+HV)  gradients that come back
    Tensor<Real, 4> memory;            // (S, H, K, V)  that leaves
    Tensor<Real, 4> arrived;           // (S, H, K, V)  a gradient that comes back
  };

  DeltaNetPieces() = default;
  DeltaNetPieces(const ProcessGrid& grid, const DeltaRuleShape& shape, int taps, int channels)
      : group_(grid.context),
        ranks_(grid.degrees.context),
        shape_(shape),
        taps_(taps),
        channels_(channels) {}

  /// One rank has all of every document: nothing below is called.
  bool alone() const { return ranks_ == 1; }

  /// M of each sequence, (S, H, K, K).
  Tensor<Real, 4> reserve_transition(Arena& arena, int sequences) const;
  Work reserve_work(Arena& arena, int sequences) const;

  /// initial (S, taps - 1, 2GK+HV): the inputs in front of this piece.
  void find_tails(const Exec& exec, const Documents& documents, const CausalConv<Storage>& conv,
                  const Tensor<const Storage, 2>& qkvz, const Tensor<Storage, 3>& initial,
                  const Work& work) const;

  /// initial (S, H, K, V): the memories in front of this piece; `transition` is kept for backward.
  void find_memories(const Exec& exec, const Documents& documents,
                     const DeltaRuleInput<Storage>& in, const Tensor<Real, 4>& transition,
                     const Tensor<Real, 4>& initial, const Work& work,
                     const DeltaRuleWork<Real>& rule) const;

  /// The gradient of the memories behind this piece, work.arrived. dout (T, H, V).
  void find_memory_gradients(const Exec& exec, const Documents& documents,
                             const DeltaRuleInput<Storage>& in,
                             const Tensor<const Storage, 3>& dout,
                             const Tensor<const Real, 4>& transition, const Work& work,
                             const DeltaRuleWork<Real>& rule) const;

  /// work.tails holds the gradient of the inputs in front of this piece; what the right neighbour
  /// has of them joins dqkvz.
  void return_tails(const Exec& exec, const Documents& documents, const CausalConv<Storage>& conv,
                    const Tensor<Storage, 2>& dqkvz, const Work& work) const;

 private:
  Communicator group_;
  int ranks_ = 1;
  DeltaRuleShape shape_{};
  int taps_ = 0;
  int channels_ = 0;
};

}  // namespace qnext
