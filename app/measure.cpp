// SPDX-License-Identifier: Apache-2.0
#include "app/measure.hpp"

#include "core/fence.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace qnext {

double shortest_time(const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [&] {
    const auto begin = Clock::now();
    run();
    fence(Exec{}, "bench: the work that is timed");
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  seconds();
  double shortest = seconds(), total = shortest;
  for (int i = 1; i < 3 || (total < 0.5 && i < 1000); ++i) {
    const double once = seconds();
    shortest = std::min(shortest, once);
    total += once;
  }
  return shortest;
}

std::string measurement_table(const std::vector<Measurement>& measurements, const Peaks& peaks) {
  std::string text = fmt::format("{:<44} {:>10} {:>10} {:>7} {:>9} {:>7}\n", "what", "ms",
                                 "GFLOP/s", "of peak", "GB/s", "of copy");
  for (const Measurement& m : measurements) {
    const auto rate = [&](double amount, double peak) {
      return amount > 0.0 ? std::pair(fmt::format("{:.1f}", amount / m.seconds * 1e-9),
                                      fmt::format("{:.0f}%", 100.0 * amount / m.seconds / peak))
                          : std::pair(std::string("-"), std::string("-"));
    };
    const auto [flops, flop_share] = rate(m.flops, peaks.product);
    const auto [bytes, byte_share] = rate(m.bytes, peaks.copy);
    text += fmt::format("{:<44} {:>10.3f} {:>10} {:>7} {:>9} {:>7}\n", m.name, m.seconds * 1e3,
                        flops, flop_share, bytes, byte_share);
  }
  return text;
}

}  // namespace qnext
