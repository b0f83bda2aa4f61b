// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

namespace qnext {

/// Waits until all work on `exec` is done. The reason is shown by Kokkos Tools from Kokkos 3.6 on;
/// older versions take none.
inline void fence(const Exec& exec, const char* reason) {
#if KOKKOS_VERSION >= 30600
  exec.fence(reason);
#else
  (void)reason;
  exec.fence();
#endif
}

}  // namespace qnext
