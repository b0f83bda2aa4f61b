// SPDX-License-Identifier: Apache-2.0
#include "app/bytes.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <utility>

namespace qnext {

std::string format_bytes(std::int64_t bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024.0 && unit < 5; ++unit) {
    value /= 1024.0;
  }
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 2, units[unit]);
}

std::optional<std::int64_t> parse_bytes(std::string_view text) {
  double number = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || !(number >= 0.0)) {
    return std::nullopt;
  }
  text.remove_prefix(end - text.data());
  while (!text.empty() && text.front() == ' ') {
    text.remove_prefix(1);
  }
  constexpr std::pair<std::string_view, double> units[] = {
      {"", 1.0},       {"B", 1.0},  {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
      {"TiB", 0x1p40}, {"KB", 1e3}, {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12}};
  for (const auto& [name, size] : units) {
    if (text == name && number * size < 0x1p62) {
      return std::llround(number * size);
    }
  }
  return std::nullopt;
}

}  // namespace qnext
