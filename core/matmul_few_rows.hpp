// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

namespace qnext {

/// Rows of A that are still multiplied one dot product at a time, at the rate at which memory
/// delivers B.
inline constexpr int few_rows = 8;

/// c = a b^T or c += a b^T on CPU threads for a (M, K) with at most few_rows rows, b (N, K) and
/// c (M, N): one token, or a few, through a matrix of weights. The bits of a row do not depend on
/// M or on the number of threads.
template <class In, class Out>
void matmul_few_rows(const Exec& exec, const Tensor<const In, 2>& a, const Tensor<const In, 2>& b,
                     const Tensor<Out, 2>& c, bool add);

}  // namespace qnext
