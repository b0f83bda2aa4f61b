// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "io/hugging_face_config.hpp"

#include <nlohmann/json.hpp>

#include <optional>

namespace qnext {
namespace {

using OrderedJson = nlohmann::ordered_json;

OrderedJson or_null(const std::optional<int>& number) {
  return number ? OrderedJson(*number) : OrderedJson();
}

/// The interval that says the same as layer_types, or 0 where none does.
int attention_interval(const std::vector<HuggingFaceConfig::LayerType>& types) {
  using LayerType = HuggingFaceConfig::LayerType;
  const int layers = static_cast<int>(types.size());
  for (int interval = 1; interval <= layers; ++interval) {
    bool same = true;
    for (int layer = 0; same && layer < layers; ++layer) {
      same = (types[layer] == LayerType::full_attention) == ((layer + 1) % interval == 0);
    }
    if (same) {
      return interval;
    }
  }
  return 0;
}

OrderedJson words_of(const std::vector<HuggingFaceConfig::LayerType>& types) {
  OrderedJson words = OrderedJson::array();
  for (const auto type : types) {
    words.push_back(type == HuggingFaceConfig::LayerType::full_attention ? "full_attention"
                                                                         : "linear_attention");
  }
  return words;
}

OrderedJson end_tokens(const std::vector<int>& tokens) {
  return tokens.empty()       ? OrderedJson()
         : tokens.size() == 1 ? OrderedJson(tokens.front())
                              : OrderedJson(tokens);
}

}  // namespace

std::string HuggingFaceConfig::text() const {
  OrderedJson json = {{"architectures", OrderedJson::array({"Qwen3NextForCausalLM"})},
                      {"attention_bias", false},
                      {"attention_dropout", attention_dropout},
                      {"bos_token_id", or_null(bos_token_id)},
                      {"decoder_sparse_step", decoder_sparse_step},
                      {"eos_token_id", end_tokens(eos_token_ids)}};
  if (const int interval = attention_interval(layer_types)) {
    json["full_attention_interval"] = interval;
  }
  json.update({{"head_dim", head_dim},
               {"hidden_act", "silu"},
               {"hidden_size", hidden_size},
               {"initializer_range", initializer_range},
               {"intermediate_size", intermediate_size},
               {"layer_types", words_of(layer_types)},
               {"linear_conv_kernel_dim", linear_conv_kernel_dim},
               {"linear_key_head_dim", linear_key_head_dim},
               {"linear_num_key_heads", linear_num_key_heads},
               {"linear_num_value_heads", linear_num_value_heads},
               {"linear_value_head_dim", linear_value_head_dim},
               {"max_position_embeddings", max_position_embeddings},
               {"mlp_only_layers", mlp_only_layers},
               {"model_type", "qwen3_next"},
               {"moe_intermediate_size", moe_intermediate_size},
               {"norm_topk_prob", norm_topk_prob},
               {"num_attention_heads", num_attention_heads},
               {"num_experts", num_experts},
               {"num_experts_per_tok", num_experts_per_tok},
               {"num_hidden_layers", num_hidden_layers},
               {"num_key_value_heads", num_key_value_heads},
               {"output_router_logits", false},
               {"pad_token_id", or_null(pad_token_id)},
               {"partial_rotary_factor", partial_rotary_factor},
               {"rms_norm_eps", rms_norm_eps},
               {"rope_scaling", nullptr},
               {"rope_theta", rope_theta},
               {"router_aux_loss_coef", router_aux_loss_coef},
               {"shared_expert_intermediate_size", shared_expert_intermediate_size},
               {"tie_word_embeddings", tie_word_embeddings},
               {"torch_dtype", dtype},
               {"use_cache", true},
               {"use_sliding_window", false},
               {"vocab_size", vocab_size}});
  return json.dump(2) + "\n";
}

std::string config_with_dtype(const std::string& text, const std::string& path,
                              const std::string& dtype) {
  if (HuggingFaceConfig::parse(text, path).dtype == dtype) {
    return text;
  }
  auto json = OrderedJson::parse(text);
  const bool renewed = json.contains("dtype");
  if (renewed) {
    json["dtype"] = dtype;
  }
  if (!renewed || json.contains("torch_dtype")) {
    json["torch_dtype"] = dtype;
  }
  return json.dump(2) + "\n";
}

}  // namespace qnext
