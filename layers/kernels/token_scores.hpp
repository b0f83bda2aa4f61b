// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

namespace qnext {

/// Of each row of logits (R, V) what a model says of its label (R), a token of the vocabulary:
///
///     log_probability_r = l_r,label - log sum_v exp(l_rv)     (R)
///     best_r = argmax_v l_rv, the first of equals             (R)
template <class Real>
void score_tokens(const Exec& exec, const Tensor<const Real, 2>& logits,
                  const Tensor<const int, 1>& labels, const Tensor<double, 1>& log_probability,
                  const Tensor<int, 1>& best);

}  // namespace qnext
