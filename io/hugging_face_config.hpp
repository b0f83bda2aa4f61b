// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qnext {

/// What config.json of a Hugging Face folder says of a Qwen3-Next model, under its own names.
///
/// Both forms are read: the released one (full_attention_interval, rope_theta,
/// partial_rotary_factor, torch_dtype) and that of transformers 5 (layer_types, rope_parameters,
/// dtype). What a key says that stands in both must agree, except that layer_types wins over
/// full_attention_interval. A key whose value means other mathematics than ours is an InputError
/// with the value found and the value wanted.
struct HuggingFaceConfig {
  enum class LayerType { linear_attention, full_attention };

  std::string model_type;
  int vocab_size = 0;
  int hidden_size = 0;
  int num_hidden_layers = 0;
  int intermediate_size = 0;  // of dense layers; 0 where there are none and the key is absent
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  std::int64_t max_position_embeddings = 0;  // 0: not said
  std::string dtype;                         // "bfloat16", "float32", ...; empty: not said

  std::vector<LayerType> layer_types;  // (layers) however the file says it

  // Full attention.
  int num_attention_heads = 0;
  int num_key_value_heads = 0;
  int head_dim = 0;
  double rope_theta = 0.0;
  double partial_rotary_factor = 0.25;
  double attention_dropout = 0.0;  // of training; nothing here applies it

  // Linear attention.
  int linear_num_key_heads = 0;
  int linear_num_value_heads = 0;
  int linear_key_head_dim = 0;
  int linear_value_head_dim = 0;
  int linear_conv_kernel_dim = 0;

  // Experts.
  int num_experts = 0;
  int num_experts_per_tok = 0;
  int moe_intermediate_size = 0;
  int shared_expert_intermediate_size = 0;
  bool norm_topk_prob = true;
  double router_aux_loss_coef = 0.001;
  int decoder_sparse_step = 1;
  std::vector<int> mlp_only_layers;

  std::optional<int> num_nextn_predict_layers;  // MTP modules; released files do not say
  std::vector<int> eos_token_ids;
  std::optional<int> bos_token_id;
  std::optional<int> pad_token_id;

  /// One line for each key that is there and has no effect here: unknown, or only of training.
  std::vector<std::string> remarks;

  /// Width of a head that RoPE turns.
  int rotary_width() const { return static_cast<int>(head_dim * partial_rotary_factor); }

  /// Whether that layer has experts; a dense MLP otherwise.
  bool has_experts(int layer) const;

  static HuggingFaceConfig read(const std::string& folder);
  static HuggingFaceConfig parse(const std::string& text, const std::string& path);

  /// A config.json that says this: the released form, which every transformers reads, with
  /// layer_types.
  std::string text() const;
};

/// A config.json with another dtype: the text as it is where it says that already.
std::string config_with_dtype(const std::string& text, const std::string& path,
                              const std::string& dtype);

}  // namespace qnext
