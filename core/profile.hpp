// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

/// Makes every Kokkos load the tool that KOKKOS_TOOLS_LIBS names: before 3.7 it reads another
/// variable. Call before Kokkos starts.
void find_kokkos_tools();

/// Where the time of a run goes, from the same events that Kokkos Tools see: every kernel and every
/// phase by its label. On a GPU each kernel is waited for, so that its time is its own.
class Profile {
 public:
  struct Line {
    std::string label;
    bool phase;  // a phase contains kernels and other phases; a kernel is alone
    std::int64_t calls;
    double seconds;
  };

  /// Listens from now on. Only one profile listens at a time, and not beside a tool from
  /// KOKKOS_TOOLS_LIBS.
  static void start();
  static void stop();

  /// Longest first, phases before kernels.
  static std::vector<Line> lines();

  /// The lines as a table, with shares of `total` seconds.
  static std::string table(double total);
};

}  // namespace qnext
