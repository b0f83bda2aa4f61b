// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Kokkos_Core.hpp>

#include <string>

namespace qnext {

/// Names what runs while it lives, for Kokkos Tools and for `--profile`. Phases nest.
class Phase {
 public:
  explicit Phase(const char* name) { Kokkos::Profiling::pushRegion(std::string(name)); }
  ~Phase() { Kokkos::Profiling::popRegion(); }
  Phase(const Phase&) = delete;
  Phase& operator=(const Phase&) = delete;
};

}  // namespace qnext
