// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace qnext {

/// Tells every thread of the host to take numbers below the smallest normal one for zero, as GPUs
/// do at full speed. A delta net forgets by factors of e^-20 a token, so that its memories are full
/// of such numbers, and each operation on one costs an x86 CPU a hundred cycles: the layer was ten
/// times as slow. Called once, after Kokkos starts.
void flush_subnormals();

}  // namespace qnext
