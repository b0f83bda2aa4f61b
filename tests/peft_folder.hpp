// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/safetensors_writer.hpp"
#include "tests/temporary_folder.hpp"

#include <fmt/format.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace qnext::test {

/// A projection W (out, in) and its factors in float: A (rank, in), B (out, rank).
struct Factors {
  std::string projection;  // "model.layers.0.linear_attn.out_proj"
  int out, in;
  std::vector<float> a, b;
};

/// Writes an adapter in the form of PEFT, with lora_alpha = 3.
inline void write_peft_folder(const std::string& folder, int rank,
                              const std::vector<Factors>& adapters) {
  std::filesystem::create_directories(folder);
  write_bytes(folder + "/adapter_config.json",
              fmt::format(R"({{"peft_type":"LORA","r":{},"lora_alpha":3}})", rank));
  const auto name = [](const Factors& factors, const char* which) {
    return "base_model.model." + factors.projection + "." + which + ".weight";
  };
  std::vector<SafetensorsWriter::Entry> entries;
  for (const Factors& factors : adapters) {
    entries.push_back({name(factors, "lora_A"), NumberFormat::f32, {rank, factors.in}});
    entries.push_back({name(factors, "lora_B"), NumberFormat::f32, {factors.out, rank}});
  }
  SafetensorsWriter writer(folder, entries, std::int64_t{1} << 40, "adapter_model");
  for (const Factors& factors : adapters) {
    writer.write(name(factors, "lora_A"), 0, std::as_bytes(std::span(factors.a)));
    writer.write(name(factors, "lora_B"), 0, std::as_bytes(std::span(factors.b)));
  }
  writer.finish();
}

}  // namespace qnext::test
