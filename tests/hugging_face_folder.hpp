// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/hugging_face_model.hpp"
#include "app/hugging_face_names.hpp"
#include "io/hugging_face_config.hpp"
#include "io/safetensors_writer.hpp"
#include "layers/model.hpp"
#include "tests/temporary_folder.hpp"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace qnext::test {

/// What a generated folder of a model looks like.
struct FolderForm {
  HuggingFaceConfig config;
  bool mtp = false;
  bool head_again = false;  // a tied head stands in the file a second time
  ExpertLayout experts = ExpertLayout::one_by_one;
  std::int64_t shard_bytes = std::int64_t{1} << 40;
  std::function<NumberFormat(const Parameter&)> format = [](const Parameter&) {
    return NumberFormat::bf16;
  };
};

/// All kinds of layers, grouped heads, widths that are no powers of two.
inline HuggingFaceConfig small_config() {
  using LayerType = HuggingFaceConfig::LayerType;
  HuggingFaceConfig config;
  config.vocab_size = 67;
  config.hidden_size = 24;
  config.num_hidden_layers = 3;
  config.intermediate_size = 20;
  config.max_position_embeddings = 512;
  config.dtype = "bfloat16";
  config.layer_types = {LayerType::linear_attention, LayerType::full_attention,
                        LayerType::linear_attention};
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.rope_theta = 1e4;
  config.linear_num_key_heads = 2;
  config.linear_num_value_heads = 4;
  config.linear_key_head_dim = 6;
  config.linear_value_head_dim = 5;
  config.linear_conv_kernel_dim = 4;
  config.num_experts = 3;
  config.num_experts_per_tok = 2;
  config.moe_intermediate_size = 10;
  config.shared_expert_intermediate_size = 14;
  config.mlp_only_layers = {2};
  return config;
}

/// The tensors of a folder of that form, in the order of the model.
inline std::vector<SafetensorsWriter::Entry> entries_of(const FolderForm& form) {
  ModelConfig model = model_config(form.config);
  model.mtp_modules = form.mtp ? 1 : 0;
  ParameterTable table;
  const Model<bf16> registered(model, ProcessGrid{}, table);
  std::vector<SafetensorsWriter::Entry> entries;
  for (const Parameter& row : table.rows()) {
    if (row.alias_of.empty() || form.head_again) {
      for (const auto& tensor : hugging_face_tensors(row, form.experts)) {
        entries.push_back({tensor.name, form.format(row), tensor.extents});
      }
    }
  }
  return entries;
}

/// A word that makes numbers of any kind: subnormal ones, infinities, NaN.
inline std::vector<std::byte> random_bytes(std::int64_t count, unsigned seed) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(count));
  unsigned word = seed * 2654435761u + 1u;
  for (std::byte& byte : bytes) {
    word = word * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(word >> 24);
  }
  return bytes;
}

inline void write_folder(const std::string& folder, const FolderForm& form) {
  std::filesystem::create_directories(folder);
  write_bytes(folder + "/config.json", form.config.text());
  const auto entries = entries_of(form);
  SafetensorsWriter writer(folder, entries, form.shard_bytes);
  unsigned seed = 1;
  for (const auto& entry : entries) {
    const bool again = entry.name == "lm_head.weight" && form.head_again;
    const auto bytes = random_bytes(entry.bytes(), again ? 1 : seed);  // the embedding is the first
    writer.write(entry.name, 0, bytes);
    ++seed;
  }
  writer.finish();
}

}  // namespace qnext::test
