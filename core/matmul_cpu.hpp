// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/matmul.hpp"

namespace qnext {

/// The products of core/matmul.hpp on CPU threads, for every pair of types: bf16 with oneDNN where
/// it is fast, float A B and A^T B without groups too, everything else with our own tile product.
/// The bits of a row of a grouped product depend on that row of A, on B and on K alone: not on the
/// number of rows, of groups or of threads. Extents are not checked here.
template <class In, class Out>
void matmul_cpu(const Exec& exec, Op op_a, const Tensor<const In, 2>& a, Op op_b,
                const Tensor<const In, 2>& b, const Tensor<Out, 2>& c, Write write);

template <class In, class Out>
void matmul_grouped_cpu(const Exec& exec, const Tensor<const int, 1>& offset,
                        const Tensor<const In, 2>& a, Op op_b, const Tensor<const In, 3>& b,
                        const Tensor<Out, 2>& c, Write write);

template <class In, class Out>
void matmul_grouped_gradient_cpu(const Exec& exec, const Tensor<const int, 1>& offset,
                                 const Tensor<const In, 2>& a, const Tensor<const In, 2>& c,
                                 const Tensor<Out, 3>& b);

/// What oneDNN holds in products of that type, on all threads.
std::int64_t matmul_cpu_workspace_bytes(DataType type);

}  // namespace qnext
