// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

namespace qnext {

/// c = a b^T or c += a b^T on CPU threads for a (M, K) with few rows, b (N, K) and c (M, N): one
/// token, or a few, through a matrix of weights at the rate at which memory delivers it. The bits
/// of a row do not depend on M or on the number of threads.
template <class In, class Out>
void matmul_few_rows(const Exec& exec, const Tensor<const In, 2>& a, const Tensor<const In, 2>& b,
                     const Tensor<Out, 2>& c, bool add);

}  // namespace qnext
