// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

#include <cstdint>

namespace qnext {

/// How an operand of a product is read.
enum class Op { none, transpose };

/// Whether a product replaces what the result held or is added to it.
enum class Write { replace, add };

/// See matmul.
inline constexpr int few_rows = 64;

/// The one door to matrix products: C = op_a(A) op_b(B), or C += that. All row-major and
/// contiguous, sums in Accum<In>. Vendor libraries live behind it; which of them serves which shape
/// is a table in the source, so that equal calls give equal bits.
///
///     In = double:  Out = double
///     In = float:   Out = float
///     In = bf16:    Out = bf16 or float
///
/// Of at most few_rows rows of A times a transposed B, a row of C does not depend on how many there
/// are: tokens that are decoded together have the bits of each alone. Refuses extents that do not
/// fit, with the extents.
template <class In, class Out>
void matmul(const Exec& exec, Op op_a, const Tensor<const In, 2>& a, Op op_b,
            const Tensor<const In, 2>& b, const Tensor<Out, 2>& c, Write write = Write::replace);

/// One product for each of E groups of rows. Group e owns the rows offset(e) ... offset(e + 1) - 1
/// of A and C (some groups may be empty):
///
///     C_e = A_e op_b(B_e),   A (R, K), B (E, N, K) or (E, K, N), C (R, N), offset (E + 1)
///
/// A row of C does not depend on how many rows its group has.
template <class In, class Out>
void matmul_grouped(const Exec& exec, const Tensor<const int, 1>& offset,
                    const Tensor<const In, 2>& a, Op op_b, const Tensor<const In, 3>& b,
                    const Tensor<Out, 2>& c, Write write = Write::replace);

/// The gradient of the weights of such a product: B_e += A_e^T C_e over the rows of each group,
/// with A (R, M), C (R, N), B (E, M, N). Groups without rows add nothing.
template <class In, class Out>
void matmul_grouped_gradient(const Exec& exec, const Tensor<const int, 1>& offset,
                             const Tensor<const In, 2>& a, const Tensor<const In, 2>& c,
                             const Tensor<Out, 3>& b);

/// Memory that vendor libraries hold beside the operands of products so far, grown by their largest
/// shapes.
std::int64_t matmul_workspace_bytes();

/// What that grows to in a run whose operands have that type.
std::int64_t matmul_planned_workspace_bytes(DataType type);

}  // namespace qnext
