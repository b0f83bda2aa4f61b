// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace qnext {

/// Which instruction sets the compiler was allowed to use. Constants: reading them runs no code of
/// a file that was compiled with them.
struct ProcessorFeatures {
  bool sse42 = false;
  bool avx = false;
  bool avx2 = false;
  bool fma = false;
  bool bmi2 = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512dq = false;
  bool avx512vl = false;
  bool avx512vnni = false;
  bool avx512bf16 = false;
};
extern const ProcessorFeatures built_with;

}  // namespace qnext
