// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/bf16.hpp"

#include <cstdint>

namespace qnext::tile {

/// What makes bf16 products on a CPU: AMX tiles, bf16 dot products of vectors, or float
/// multiply-adds of widened numbers.
enum class Unit { amx, dot, widened };

/// Whether this build has code for the unit, and processor and kernel let this process use it.
bool available(Unit unit);

/// The fastest unit that oneDNN may use as well: ONEDNN_MAX_CPU_ISA bounds both. Decided once.
Unit usual_unit();

/// c = a b, or c += a b, with the operands of core/tile_packing: a (M, K) in rows of that stride, b
/// (K, N) in panels of `depth` padded terms, c (M, N) of float. K ends with the operand or is a
/// multiple of 32. Sums are float and run over k in one order for every element, whatever M and N
/// are. By the calling thread; M may be any number of the rows that the padded left operand has.
void multiply_bf16_on_cpu(Unit unit, int M, int N, int K, const bf16* a, std::int64_t stride_a,
                          const bf16* b, int depth, float* c, std::int64_t stride, bool add);

}  // namespace qnext::tile
