// SPDX-License-Identifier: Apache-2.0
#include "app/adapter_factors.hpp"

#include "io/checkpoint_stream.hpp"
#include "io/number_format.hpp"

#include <algorithm>
#include <utility>

namespace qnext {

namespace {

std::vector<double> read_factor(const std::string& checkpoint, const ParameterTable& table,
                                const Parameter& factor) {
  std::vector<double> numbers(factor.shard.global_elements());
  const auto take = [&](const Parameter& row, std::int64_t begin,
                        std::span<const std::byte> bytes) {
    const std::int64_t width = size_of(row.type);
    convert_numbers(number_format_of(row.type), bytes.data(), NumberFormat::f64,
                    reinterpret_cast<std::byte*>(numbers.data() + begin / width),
                    static_cast<std::int64_t>(bytes.size()) / width);
  };
  read_checkpoint_stream(checkpoint, table, take,
                         [&](const Parameter& row) { return &row == &factor; });
  return numbers;
}

}  // namespace

AdapterFactors::AdapterFactors(const std::string& checkpoint, const ParameterTable& table)
    : AdapterFactors(table, [checkpoint, &table](const Parameter& factor) {
        return read_factor(checkpoint, table, factor);
      }) {}

AdapterFactors::AdapterFactors(const ParameterTable& table, Reader read)
    : config_(table.adapters()), read_(std::move(read)) {
  for (const Parameter& row : table.rows()) {
    if (row.of_adapter) {
      rows_[row.name] = &row;
    }
  }
}

bool AdapterFactors::beside(const Parameter& weight) const {
  return !weight.of_adapter && rows_.count(projection_of(weight.name) + ".lora_A.weight") > 0;
}

void AdapterFactors::hold(const std::string& projection) {
  if (held_ != projection) {
    a_ = read_(*rows_.at(projection + ".lora_A.weight"));
    b_ = read_(*rows_.at(projection + ".lora_B.weight"));
    held_ = projection;
  }
}

// Row by row of the weight, or of those of all experts one behind the other: row o of B A is a sum
// of rows of A.
void AdapterFactors::add(const Parameter& weight, std::int64_t first, std::span<double> numbers) {
  hold(projection_of(weight.name));
  const auto& extent = weight.shard.global_extent;
  const bool stacked = weight.shard.rank == 3;
  const std::int64_t in = extent[stacked ? 2 : 1], out = extent[stacked ? 1 : 0];
  const auto end = first + static_cast<std::int64_t>(numbers.size());
  for (std::int64_t at = first; at < end;) {
    const std::int64_t o = at / in, begin = at % in;
    const std::int64_t count = std::min(in - begin, end - at);
    for (int r = 0; r < config_.rank; ++r) {
      const double factor = config_.scale() * b_[o * config_.rank + r];
      const double* const row = &a_[(o / out * config_.rank + r) * in + begin];
      for (std::int64_t i = 0; i < count; ++i) {
        numbers[at - first + i] += factor * row[i];
      }
    }
    at += count;
  }
}

}  // namespace qnext
