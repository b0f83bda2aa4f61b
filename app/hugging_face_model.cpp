// SPDX-License-Identifier: Apache-2.0
#include "app/hugging_face_model.hpp"

#include "io/hugging_face_config.hpp"

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

}  // namespace qnext
