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

/// Takes the row and the weight from every choice beyond the capacity; the other weights of its
/// token stay as they are. `rows` holds all choices on entry; its offsets are those of before and
/// have to be made again. row_weight (T K) is for temporary numbers.
template <class Real>
void drop_beyond(const Exec& exec, const Capacity& capacity,
                 const Tensor<const int, 2>& sequence_count, const Routing<Real>& routing,
                 const ExpertRows& rows, const Tensor<Real, 1>& row_weight);

}  // namespace qnext
