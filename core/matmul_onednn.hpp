// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/bf16.hpp"
#include "core/tile_product.hpp"
#include "core/types.hpp"

#include <cstdint>

namespace qnext::onednn {

/// Whether the library has a fast bf16 product for this CPU (AMX tiles or bf16 dot products).
bool available();

/// What the library may use, by its own detection and the environment variable ONEDNN_MAX_CPU_ISA.
struct Allowed {
  bool amx;   // tiles of bf16
  bool bf16;  // bf16 dot products of vectors
};
Allowed allowed();

/// c = a b, or c += a b, for bf16 operands a (M, K), b (K, N) and c (M, N) of bf16 or float with
/// rows that lie `stride` elements apart, by the calling thread. Primitives are made once for each
/// shape, about 0.5 ms each, and kept, at most 1024 of them: callers pad extents that vary.
void multiply(int M, int N, int K, const tile::Strided<bf16>& a, const tile::Strided<bf16>& b,
              DataType type, void* c, std::int64_t stride, bool add);

/// c = a b, or c += a b, in float by the calling thread. A row can have other bits when there are
/// fewer than 16 of them.
void multiply(int M, int N, int K, const tile::Strided<float>& a, const tile::Strided<float>& b,
              float* c, std::int64_t stride, bool add);

/// What primitives work in, over all threads so far.
std::int64_t workspace_bytes();

/// What one thread needs for bf16 products of at most M rows, N columns and K terms, whichever way
/// the operands lie.
std::int64_t scratch_bytes_of(int M, int N, int K);

}  // namespace qnext::onednn
