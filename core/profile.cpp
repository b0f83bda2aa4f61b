// SPDX-License-Identifier: Apache-2.0
#include "core/profile.hpp"

#include "core/fence.hpp"
#include "core/types.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>

namespace qnext {
namespace {

using Clock = std::chrono::steady_clock;

struct Sum {
  std::int64_t calls = 0;
  double seconds = 0.0;
};

struct Open {
  std::string label;
  Clock::time_point since;
};

// The callbacks of Kokkos are plain functions without an argument of ours: the record is the one
// object of the program that they can reach.
struct Record {
  std::map<std::string, Sum> kernels, phases;
  std::vector<Open> open_phases;
  Open kernel;
};

Record& record() {
  static Record instance;
  return instance;
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

void begin_kernel(const char* name, const std::uint32_t, std::uint64_t*) {
  record().kernel = {name, Clock::now()};
}

void end_kernel(const std::uint64_t) {
  fence(Exec{}, "profile: the kernel that is being timed");
  Sum& sum = record().kernels[record().kernel.label];
  ++sum.calls;
  sum.seconds += seconds_since(record().kernel.since);
}

void begin_copy(Kokkos::Tools::SpaceHandle, const char* name, const void*,
                Kokkos::Tools::SpaceHandle, const char*, const void*, std::uint64_t) {
  record().kernel = {std::string("copy to ") + name, Clock::now()};
}

void end_copy() {
  end_kernel(0);
}

void begin_phase(const char* name) {
  record().open_phases.push_back({name, Clock::now()});
}

void end_phase() {
  auto& open = record().open_phases;
  if (open.empty()) {
    return;  // began before the profile
  }
  fence(Exec{}, "profile: the phase that is being timed");
  Sum& sum = record().phases[open.back().label];
  ++sum.calls;
  sum.seconds += seconds_since(open.back().since);
  open.pop_back();
}

void append(const std::map<std::string, Sum>& sums, bool phase, std::vector<Profile::Line>& lines) {
  const auto first = static_cast<std::ptrdiff_t>(lines.size());
  for (const auto& [label, sum] : sums) {
    lines.push_back({label, phase, sum.calls, sum.seconds});
  }
  std::stable_sort(lines.begin() + first, lines.end(),
                   [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
}

}  // namespace

void find_kokkos_tools() {
#if KOKKOS_VERSION < 30700
  if (const char* const tool = std::getenv("KOKKOS_TOOLS_LIBS")) {
    setenv("KOKKOS_PROFILE_LIBRARY", tool, 0);
  }
#endif
}

void Profile::start() {
  record() = {};
  namespace tools = Kokkos::Tools::Experimental;
  tools::set_begin_parallel_for_callback(begin_kernel);
  tools::set_end_parallel_for_callback(end_kernel);
  tools::set_begin_parallel_reduce_callback(begin_kernel);
  tools::set_end_parallel_reduce_callback(end_kernel);
  tools::set_begin_parallel_scan_callback(begin_kernel);
  tools::set_end_parallel_scan_callback(end_kernel);
  tools::set_begin_deep_copy_callback(begin_copy);
  tools::set_end_deep_copy_callback(end_copy);
  tools::set_push_region_callback(begin_phase);
  tools::set_pop_region_callback(end_phase);
}

void Profile::stop() {
  namespace tools = Kokkos::Tools::Experimental;
  tools::set_begin_parallel_for_callback(nullptr);
  tools::set_end_parallel_for_callback(nullptr);
  tools::set_begin_parallel_reduce_callback(nullptr);
  tools::set_end_parallel_reduce_callback(nullptr);
  tools::set_begin_parallel_scan_callback(nullptr);
  tools::set_end_parallel_scan_callback(nullptr);
  tools::set_begin_deep_copy_callback(nullptr);
  tools::set_end_deep_copy_callback(nullptr);
  tools::set_push_region_callback(nullptr);
  tools::set_pop_region_callback(nullptr);
}

std::vector<Profile::Line> Profile::lines() {
  std::vector<Line> lines;
  append(record().phases, true, lines);
  append(record().kernels, false, lines);
  return lines;
}

std::string Profile::table(double total) {
  std::string text =
      fmt::format("{:<52} {:>9} {:>10} {:>7}\n", "phase or kernel", "calls", "seconds", "share");
  bool phase = true;
  for (const Line& line : lines()) {
    if (phase && !line.phase) {
      text += "\n";
    }
    phase = line.phase;
    text += fmt::format("{:<52} {:>9} {:>10.3f} {:>6.1f}%\n", line.label, line.calls, line.seconds,
                        total > 0.0 ? 100.0 * line.seconds / total : 0.0);
  }
  return text;
}

}  // namespace qnext
