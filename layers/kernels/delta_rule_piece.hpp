// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "layers/kernels/delta_rule.hpp"

/// The delta rule of a document that lies on several ranks: what a rank can say of its piece before
/// it knows the memory that the piece begins with. Rows are those of Documents::arrives and
/// ::leaves, S of them. Derivation: layers/README.md, "A document on several ranks".
namespace qnext {

/// The memory behind a piece is transition S + final for the memory S in front of it.
template <class Real>
struct DeltaRulePiece {
  Tensor<Real, 4> transition;  // (S, H, K, K)  zero, unless a document fills the whole piece
  Tensor<Real, 4> final;       // (S, H, K, V)  from a zero memory; zero, if no document goes on
};

/// Elements of a slot of the workspace that both functions below want.
template <class Storage>
std::int64_t delta_rule_piece_slot(const DeltaRuleShape& shape);

/// Fills `piece` from the keys, values and gates. Costs 2 (V + K) / V of the 3 products of K V
/// that the forward walk does for a token, in documents that go on; nothing in others.
template <class Storage>
void delta_rule_piece(const Exec& exec, const Documents& documents, int chunk,
                      const DeltaRuleInput<Storage>& in,
                      const DeltaRulePiece<Accum<Storage>>& piece,
                      const DeltaRuleWork<Accum<Storage>>& work);

/// The gradient of the memory in front of a piece if nothing comes back from behind it; that which
/// does come back adds transition^T times itself. Three products of K V a token, in documents that
/// arrive; zero for the rows of others.
template <class Storage>
void delta_rule_piece_adjoint(const Exec& exec, const Documents& documents, int chunk,
                              const DeltaRuleInput<Storage>& in,
                              const Tensor<const Storage, 3>& dout,       // (T, H, V)
                              const Tensor<Accum<Storage>, 4>& dinitial,  // (S, H, K, V)
                              const DeltaRuleWork<Accum<Storage>>& work);

/// to += transition from, or transition^T from: a memory, or its gradient, through a piece.
template <class Real>
void delta_rule_pass(const Exec& exec, const Tensor<const Real, 4>& transition, bool transposed,
                     const Tensor<const Real, 4>& from,  // (S, H, K, V)
                     const Tensor<Real, 4>& to);         // (S, H, K, V)

}  // namespace qnext
