// SPDX-License-Identifier: Apache-2.0
#include "app/hugging_face_model.hpp"

#include "core/require.hpp"
#include "io/hugging_face_config.hpp"

#include <cmath>

namespace qnext {

ModelConfig model_config(const HuggingFaceConfig& config) {
  ModelConfig model;
  model.vocabulary = config.vocab_size;
  model.width = config.hidden_size;
  model.tied_head = config.tie_word_embeddings;
  model.norm_epsilon = config.rms_norm_eps;
  model.init_deviation = config.initializer_range;
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    model.mixers.push_back(config.layer_types[i] == HuggingFaceConfig::LayerType::linear_attention
                               ? Mixer::delta_net
                               : Mixer::attention);
    model.mlps.push_back(config.has_experts(i) ? Mlp::experts : Mlp::dense);
  }
  DecoderLayerConfig& layer = model.layer;
  layer.width = config.hidden_size;
  layer.norm_epsilon = config.rms_norm_eps;
  layer.delta_net = {.model_width = config.hidden_size,
                     .key_heads = config.linear_num_key_heads,
                     .value_heads = config.linear_num_value_heads,
                     .key_width = config.linear_key_head_dim,
                     .value_width = config.linear_value_head_dim,
                     .conv_taps = config.linear_conv_kernel_dim,
                     .chunk = 64,
                     .norm_epsilon = config.rms_norm_eps,
                     .init_deviation = config.initializer_range};
  layer.attention = {.model_width = config.hidden_size,
                     .heads = config.num_attention_heads,
                     .key_value_heads = config.num_key_value_heads,
                     .head_width = config.head_dim,
                     .rotary_width = config.rotary_width(),
                     .rotary_base = config.rope_theta,
                     .norm_epsilon = config.rms_norm_eps,
                     .init_deviation = config.initializer_range};
  layer.experts.model_width = config.hidden_size;
  layer.experts.experts = config.num_experts;
  layer.experts.experts_per_token = config.num_experts_per_tok;
  layer.experts.renormalise = config.norm_topk_prob;
  layer.experts.expert_width = config.moe_intermediate_size;
  layer.experts.shared_width = config.shared_expert_intermediate_size;
  layer.experts.init_deviation = config.initializer_range;
  layer.dense = {.model_width = config.hidden_size,
                 .width = config.intermediate_size,
                 .init_deviation = config.initializer_range};
  return model;
}

namespace {

/// transformers turns int(head_dim * factor) elements: the quotient may be one rounding too small.
double rotary_factor(const GatedAttentionConfig& attention) {
  const double factor = 1.0 * attention.rotary_width / attention.head_width;
  return static_cast<int>(attention.head_width * factor) == attention.rotary_width
             ? factor
             : std::nextafter(factor, 2.0);
}

void set_experts(const ModelConfig& model, HuggingFaceConfig& config) {
  const MixtureOfExpertsConfig& experts = model.layer.experts;
  config.num_experts = experts.experts;
  config.num_experts_per_tok = experts.experts_per_token;
  config.moe_intermediate_size = experts.expert_width;
  config.shared_expert_intermediate_size = experts.shared_width;
  config.norm_topk_prob = experts.renormalise;
  if (model.balance.form == BalanceLossConfig::Form::huggingface) {
    config.router_aux_loss_coef = model.balance.coefficient;
  }
  for (int i = 0; i < model.layers(); ++i) {
    if (model.mlps[i] == Mlp::dense) {
      config.mlp_only_layers.push_back(i);
    }
  }
}

}  // namespace

HuggingFaceConfig hugging_face_config(const ModelConfig& model) {
  if (model.layer.experts.shared_width == 0) {
    throw InputError(
        "model.experts.shared_width = 0: transformers has no Qwen3-Next without a shared expert");
  }
  HuggingFaceConfig config;
  config.model_type = "qwen3_next";
  config.vocab_size = model.vocabulary;
  config.hidden_size = model.width;
  config.num_hidden_layers = model.layers();
  config.intermediate_size = model.layer.dense.width;
  config.rms_norm_eps = model.norm_epsilon;
  config.initializer_range = model.init_deviation;
  config.tie_word_embeddings = model.tied_head;
  for (const Mixer mixer : model.mixers) {
    config.layer_types.push_back(mixer == Mixer::attention
                                     ? HuggingFaceConfig::LayerType::full_attention
                                     : HuggingFaceConfig::LayerType::linear_attention);
  }
  const GatedAttentionConfig& attention = model.layer.attention;
  config.num_attention_heads = attention.heads;
  config.num_key_value_heads = attention.key_value_heads;
  config.head_dim = attention.head_width;
  config.rope_theta = attention.rotary_base;
  config.partial_rotary_factor = rotary_factor(attention);
  const GatedDeltaNetConfig& delta_net = model.layer.delta_net;
  config.linear_num_key_heads = delta_net.key_heads;
  config.linear_num_value_heads = delta_net.value_heads;
  config.linear_key_head_dim = delta_net.key_width;
  config.linear_value_head_dim = delta_net.value_width;
  config.linear_conv_kernel_dim = delta_net.conv_taps;
  set_experts(model, config);
  return config;
}

}  // namespace qnext
