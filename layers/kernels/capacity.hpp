// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"
#include "layers/kernels/experts_dispatch.hpp"
#include "layers/kernels/router.hpp"

namespace qnext {

/// How many tokens an expert takes, with K choices for each token and E experts.
struct Capacity {
  enum class Rule {
    dropless,
    /// The first in each sequence of n tokens: max(ceil(n K / E) factor, factor), rounded down.
    position,
    /// The most probable of the T tokens of a microbatch: ceil(T K / E factor), ties to the lower
    /// token.
    probability
  };

  Rule rule = Rule::dropless;
  double factor = 1.25;

  /// The capacity of one expert among `tokens` tokens: those of a sequence or of the microbatch.
  int limit(int tokens, int experts, int experts_per_token) const;
};

/// The choices of all R ranks that share the S sequences. They stand in the order that their tokens
/// have in a sequence; a rank alone is the only one.
template <class Real>
struct SharedChoices {
  Tensor<const int, 3> count;    // (R, S, E)
  Tensor<const int, 2> offset;   // (R, E + 1)  first row of an expert of a rank, of all ranks' rows
  Tensor<const Real, 1> weight;  // (rows of all ranks)
  int rank = 0;                  // this one
  int tokens = 0;                // of all ranks
};

/// row_weight (T K): the weights of all choices in the order of their rows.
template <class Real>
void weights_by_row(const Exec& exec, const Routing<Real>& routing, const ExpertRows& rows,
                    const Tensor<Real, 1>& row_weight);

/// Takes the row and the weight from every choice of this rank beyond the capacity, in which all
/// ranks count together; the other weights of its token stay as they are. `rows` holds all choices
/// on entry; its offsets are those of before and have to be made again.
template <class Real>
void drop_beyond(const Exec& exec, const Capacity& capacity, const SharedChoices<Real>& shared,
                 const Routing<Real>& routing, const ExpertRows& rows);

}  // namespace qnext
