// SPDX-License-Identifier: Apache-2.0
#include "app/peft_factor.hpp"

#include <cstring>
#include <string_view>

namespace qnext {
namespace {

constexpr const char* prefix = "base_model.model.";
constexpr std::string_view gate_up = ".gate_up_proj", down = ".down_proj";

bool is_stacked(const std::string& projection) {
  return weight_of(projection) == projection;
}

std::string module_of(const std::string& projection) {
  return projection.substr(0, projection.rfind('.'));
}

std::string name_of(const std::string& projection, bool down_too) {
  const bool inside = down_too && projection.ends_with(gate_up);
  return prefix + (is_stacked(projection) ? module_of(projection) : projection) +
         (inside ? ".base_layer" : "");
}

// to(e, o, r) = from(o, r, e), or the other way round.
std::vector<std::byte> turned(const Parameter& row, std::span<const std::byte> bytes,
                              std::int64_t width, bool to_file) {
  const std::int64_t E = row.shard.global_extent[0];
  const std::int64_t N = static_cast<std::int64_t>(bytes.size()) / width / E;
  std::vector<std::byte> result(bytes.size());
  for (std::int64_t e = 0; e < E; ++e) {
    for (std::int64_t n = 0; n < N; ++n) {
      const std::int64_t here = e * N + n, there = n * E + e;
      std::memcpy(&result[(to_file ? there : here) * width],
                  &bytes[(to_file ? here : there) * width], width);
    }
  }
  return result;
}

}  // namespace

PeftFactor peft_factor(const Parameter& row, const AdapterConfig& adapters) {
  const auto& extent = row.shard.global_extent;
  const std::size_t end = row.name.find(".lora_");
  const std::string projection = row.name.substr(0, end), half = row.name.substr(end);
  const bool of_b = half.starts_with(".lora_B");
  if (!is_stacked(projection)) {
    const std::string name = name_of(projection, false) + half;
    return of_b ? PeftFactor{name, {extent[0], extent[1]}, false, 1, extent[0], 1}
                : PeftFactor{name, {extent[0], extent[1]}, false, 0, 1, extent[1]};
  }
  const bool down_too = adapters.targets_weight(module_of(projection) + std::string(down));
  const std::string name = name_of(projection, down_too) + half;
  return of_b
             ? PeftFactor{name, {extent[1], extent[2] * extent[0]}, true, 1, extent[0] * extent[1],
                          1}
             : PeftFactor{name, {extent[0] * extent[1], extent[2]}, false, 0, extent[0], extent[2]};
}

// Of experts of which one projection alone has adapters, the rows of B tell which.
std::string peft_prefix(const SafetensorsFile& file, const ModelConfig& model,
                        const std::string& projection) {
  const auto find = [&](const std::string& name) { return file.tensors().find(name); };
  const auto none = file.tensors().end();
  if (!is_stacked(projection)) {
    return name_of(projection, false);
  }
  const std::string both = prefix + module_of(projection) + ".base_layer.lora_";
  if (find(both + "A.weight") != none || find(both + "B.weight") != none) {
    return name_of(projection, true);
  }
  const auto b = find(name_of(projection, false) + ".lora_B.weight");
  const bool of_gate_up = b != none && !b->second.extents.empty() &&
                          b->second.extents[0] == 2 * model.layer.experts.expert_width;
  return of_gate_up == projection.ends_with(gate_up) ? name_of(projection, false) : "";
}

std::vector<std::byte> experts_first(const Parameter& row, std::span<const std::byte> bytes,
                                     std::int64_t width) {
  return turned(row, bytes, width, false);
}

std::vector<std::byte> experts_last(const Parameter& row, std::span<const std::byte> bytes,
                                    std::int64_t width) {
  return turned(row, bytes, width, true);
}

std::vector<std::byte> raise_rank(std::span<const std::byte> bytes, std::int64_t rows,
                                  std::int64_t from, std::int64_t to, std::int64_t unit_bytes) {
  std::vector<std::byte> raised(static_cast<std::size_t>(rows * to * unit_bytes));
  for (std::int64_t row = 0; row < rows; ++row) {
    std::memcpy(&raised[row * to * unit_bytes], &bytes[row * from * unit_bytes], from * unit_bytes);
  }
  return raised;
}

}  // namespace qnext
