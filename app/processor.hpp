// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace qnext {

/// Throws EnvironmentError if this program was built with instructions that this CPU lacks.
/// Compiled without such instructions itself, so that it can say so.
void check_processor();

/// The instruction sets that the build uses and results may depend on: "avx2 fma avx512f".
std::string processor_features();

}  // namespace qnext
