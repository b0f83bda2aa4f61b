// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace qnext {

/// What a run needs to be made again: printed by --version and at the start, kept in checkpoints.
struct Version {
  std::string_view version;   // of the project: "0.1.0"
  std::string_view commit;    // of the source tree at the build; "-dirty" when it had local changes
  std::string_view backend;   // serial | openmp | cuda | hip
  std::string_view compiler;  // "GNU 12.2.0"
  std::string_view flags;     // of the compiler
};

Version version();

}  // namespace qnext
