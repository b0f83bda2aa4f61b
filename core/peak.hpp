// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

#include <cstdint>

namespace qnext {

/// What this machine reaches at best, measured where it is asked for: the yardsticks of
/// `qnext bench` and of the model FLOP utilisation. Each takes a fraction of a second.

/// FLOP/s of A B^T with square matrices of that extent, values and results of that type.
double measured_product_peak(DataType type, int extent);

/// Bytes/s of a copy from memory to memory, read and written bytes added up.
double measured_copy_rate();

/// Bytes/s of a sum over so many bytes of memory, which is read again and again.
double measured_read_rate(std::int64_t bytes);

}  // namespace qnext
