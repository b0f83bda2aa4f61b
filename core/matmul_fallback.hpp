// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/matmul.hpp"

namespace qnext {

/// The products of core/matmul.hpp in plain Kokkos on core/tile, for every backend and every type:
/// the reference of the vendor libraries, and what serves where there is none. Extents are not
/// checked here.
template <class In, class Out>
void matmul_fallback(const Exec& exec, Op op_a, const Tensor<const In, 2>& a, Op op_b,
                     const Tensor<const In, 2>& b, const Tensor<Out, 2>& c,
                     Write write = Write::replace);

template <class In, class Out>
void matmul_grouped_fallback(const Exec& exec, const Tensor<const int, 1>& offset,
                             const Tensor<const In, 2>& a, Op op_b, const Tensor<const In, 3>& b,
                             const Tensor<Out, 2>& c, Write write = Write::replace);

template <class In, class Out>
void matmul_grouped_gradient_fallback(const Exec& exec, const Tensor<const int, 1>& offset,
                                      const Tensor<const In, 2>& a, const Tensor<const In, 2>& c,
                                      const Tensor<Out, 3>& b);

}  // namespace qnext
