// SPDX-License-Identifier: Apache-2.0
#include "app/flops.hpp"

#include <algorithm>

namespace qnext {
namespace {

double delta_net_multiply_adds(const GatedDeltaNetConfig& c) {
  const double D = c.model_width, G = c.key_heads, H = c.value_heads;
  const double K = c.key_width, V = c.value_width;
  return D * (2 * G * K + 2 * H * V + 2 * H) + c.conv_taps * (2 * G * K + H * V) + 4 * H * K * V +
         D * H * V;
}

double attention_multiply_adds(const GatedAttentionConfig& c) {
  const double D = c.model_width, W = c.head_width;
  const double query = c.heads * W, key = c.key_value_heads * W;
  return D * (2 * query + 2 * key) + D * query;
}

double experts_multiply_adds(const MixtureOfExpertsConfig& c) {
  return 3.0 * c.model_width * (1.0 * c.expert_width * c.experts_per_token + c.shared_width);
}

double score_multiply_adds(const GatedAttentionConfig& c, double mean_length) {
  return 1.0 * c.heads * c.head_width * mean_length;
}

double dense_multiply_adds(const ModelConfig& model) {
  return 3.0 * model.width * model.layer.dense.width;
}

// [embedding | hidden] W_fc, and the norms in front of it.
double projection_multiply_adds(const ModelConfig& model) {
  const double D = model.width;
  return 3 * D + 2 * D * D;
}

}  // namespace

std::vector<FlopPart> flop_parts(const ModelConfig& model, double mean_length) {
  const double D = model.width;
  const int modules = model.mtp_modules;
  const auto mixers = [&](Mixer kind) {
    return static_cast<int>(std::count(model.mixers.begin(), model.mixers.end(), kind));
  };
  const auto mlps = [&](Mlp kind) {
    return static_cast<int>(std::count(model.mlps.begin(), model.mlps.end(), kind));
  };
  // The module for multi-token prediction has an attention layer with experts.
  const int attention = mixers(Mixer::attention) + modules;
  const auto& layer = model.layer;
  std::vector<FlopPart> parts{
      {"delta net", delta_net_multiply_adds(layer.delta_net), mixers(Mixer::delta_net)},
      {"attention, products", attention_multiply_adds(layer.attention), attention},
      {"attention, scores", score_multiply_adds(layer.attention, mean_length), attention},
      {"experts", experts_multiply_adds(layer.experts), mlps(Mlp::experts) + modules},
      {"dense MLP", dense_multiply_adds(model), mlps(Mlp::dense)},
      {"logits", D * model.vocabulary, 1 + modules},
      {"multi-token prediction, projection", projection_multiply_adds(model), modules},
  };
  std::erase_if(parts, [](const FlopPart& part) { return part.layers == 0; });
  return parts;
}

int flops_per_multiply_add(const ModelConfig& model) {
  return model.adapters.any() ? 4 : 6;
}

double flops_per_token(const ModelConfig& model, double mean_length) {
  double sum = 0.0;
  for (const FlopPart& part : flop_parts(model, mean_length)) {
    sum += part.multiply_adds * part.layers;
  }
  return flops_per_multiply_add(model) * sum;
}

double layer_multiply_adds(const ModelConfig& model, int layer, double mean_length) {
  const auto& shape = model.layer;
  const double mixer = model.mixers[layer] == Mixer::delta_net
                           ? delta_net_multiply_adds(shape.delta_net)
                           : attention_multiply_adds(shape.attention) +
                                 score_multiply_adds(shape.attention, mean_length);
  return mixer + (model.mlps[layer] == Mlp::experts ? experts_multiply_adds(shape.experts)
                                                    : dense_multiply_adds(model));
}

double behind_layers_multiply_adds(const ModelConfig& model, double mean_length) {
  const auto& shape = model.layer;
  const double logits = 1.0 * model.width * model.vocabulary;
  const double module =
      attention_multiply_adds(shape.attention) + score_multiply_adds(shape.attention, mean_length) +
      experts_multiply_adds(shape.experts) + projection_multiply_adds(model) + logits;
  return logits + model.mtp_modules * module;
}

}  // namespace qnext
