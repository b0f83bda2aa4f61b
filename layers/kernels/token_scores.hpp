// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

namespace qnext {

/// What a model says of tokens (N), each of which belongs to a row of its logits (R, V); rows (N),
/// r = rows(n):
///
///     log_probability_n = l_r,token - log sum_v exp(l_rv)     (N)
///     best_n = argmax_v l_rv, the first of equals             (N)
template <class Real>
void score_tokens(const Exec& exec, const Tensor<const Real, 2>& logits,
                  const Tensor<const int, 1>& rows, const Tensor<const int, 1>& tokens,
                  const Tensor<double, 1>& log_probability, const Tensor<int, 1>& best);

}  // namespace qnext
