// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/bf16.hpp"

#include <cstdint>

/// The matrix unit of Intel's CPUs. Elsewhere nothing is available.
namespace qnext::tile::amx {

/// Whether processor and kernel let this process use tiles; asks the kernel once.
bool available();

/// multiply_bf16_on_cpu by tiles of 16 x 16 sums.
void multiply(int M, int N, int K, const bf16* a, std::int64_t stride_a, const bf16* b, int depth,
              float* c, std::int64_t stride, bool add);

}  // namespace qnext::tile::amx
