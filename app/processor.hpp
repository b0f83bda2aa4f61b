// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

namespace qnext {

/// An instruction set: whether this program was built with it, and whether this CPU has it.
struct ProcessorFeature {
  const char* name;
  bool built;
  bool present;
};

/// Throws EnvironmentError if this program was built with instructions that this CPU lacks.
/// Compiled without such instructions itself, so that it can say so.
void check_processor();
void check_processor(std::span<const ProcessorFeature> features);

/// The instruction sets that the build uses and results may depend on: "avx2 fma avx512f".
std::string processor_features();

}  // namespace qnext
