// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/matmul.hpp"

namespace qnext {

/// matmul by cuBLAS on the stream of `exec`: sums in float for bf16 and float (no TF32), in double
/// for double. Extents are not checked here and are not zero.
template <class In, class Out>
void matmul_cublas(const Exec& exec, Op op_a, const Tensor<const In, 2>& a, Op op_b,
                   const Tensor<const In, 2>& b, const Tensor<Out, 2>& c, Write write);

std::int64_t cublas_workspace_bytes();

}  // namespace qnext
