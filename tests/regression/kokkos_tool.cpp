// SPDX-License-Identifier: Apache-2.0
//
// A tool for KOKKOS_TOOLS_LIBS: writes the name of every kernel and phase to the standard error.
#include <cstdint>
#include <cstdio>

namespace {

void report(const char* kind, const char* name) {
  std::fprintf(stderr, "tool: %s %s\n", kind, name);
}

}  // namespace

extern "C" {

void kokkosp_begin_parallel_for(const char* name, std::uint32_t, std::uint64_t*) {
  report("kernel", name);
}
void kokkosp_begin_parallel_reduce(const char* name, std::uint32_t, std::uint64_t*) {
  report("kernel", name);
}
void kokkosp_begin_parallel_scan(const char* name, std::uint32_t, std::uint64_t*) {
  report("kernel", name);
}
void kokkosp_push_profile_region(const char* name) {
  report("phase", name);
}
}
