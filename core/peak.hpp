// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

namespace qnext {

/// What this machine reaches at best, measured where it is asked for: the yardsticks of
/// `qnext bench` and of the model FLOP utilisation. Each takes a fraction of a second.

/// FLOP/s of A B^T with square matrices of that extent, values and results of that type.
double measured_product_peak(DataType type, int extent);

/// Bytes/s of a copy from memory to memory, read and written bytes added up.
double measured_copy_rate();

/// Bytes/s of a sum over numbers in memory.
double measured_read_rate();

}  // namespace qnext
