// SPDX-License-Identifier: Apache-2.0
#include "app/adapter_factors.hpp"

#include "io/checkpoint_stream.hpp"
#include "io/number_format.hpp"

#include <algorithm>

namespace qnext {

AdapterFactors::AdapterFactors(const std::string& checkpoint, const ParameterTable& table)
    : config_(table.adapters()) {
  if (!config_.any()) {
    return;
  }
  const auto take = [&](const Parameter& row, std::int64_t begin,
                        std::span<const std::byte> bytes) {
    auto& numbers = factors_[row.name];
    const auto count = static_cast<std::int64_t>(bytes.size()) / size_of(row.type);
    const std::int64_t first = begin / size_of(row.type);
    numbers.resize(static_cast<std::size_t>(first + count));
    convert_numbers(number_format_of(row.type), bytes.data(), NumberFormat::f64,
                    reinterpret_cast<std::byte*>(numbers.data() + first), count);
  };
  read_checkpoint_stream(checkpoint, table, take,
                         [](const Parameter& row) { return row.of_adapter; });
}

bool AdapterFactors::beside(const Parameter& weight) const {
  return !weight.of_adapter && factors_.count(projection_of(weight.name) + ".lora_A.weight") > 0;
}

// Row by row of the weight, or of those of all experts one behind the other: row o of B A is a sum
// of rows of A.
void AdapterFactors::add(const Parameter& weight, std::int64_t first,
                         std::span<double> numbers) const {
  const std::string projection = projection_of(weight.name);
  const auto& a = factors_.at(projection + ".lora_A.weight");
  const auto& b = factors_.at(projection + ".lora_B.weight");
  const auto& extent = weight.shard.global_extent;
  const bool stacked = weight.shard.rank == 3;
  const std::int64_t in = extent[stacked ? 2 : 1], out = extent[stacked ? 1 : 0];
  const auto end = first + static_cast<std::int64_t>(numbers.size());
  for (std::int64_t at = first; at < end;) {
    const std::int64_t o = at / in, begin = at % in;
    const std::int64_t count = std::min(in - begin, end - at);
    for (int r = 0; r < config_.rank; ++r) {
      const double factor = config_.scale() * b[o * config_.rank + r];
      const double* const row = &a[(o / out * config_.rank + r) * in + begin];
      for (std::int64_t i = 0; i < count; ++i) {
        numbers[at - first + i] += factor * row[i];
      }
    }
    at += count;
  }
}

}  // namespace qnext
