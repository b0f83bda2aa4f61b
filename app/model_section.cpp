// SPDX-License-Identifier: Apache-2.0
#include "app/model_section.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace qnext {
namespace {

constexpr int most_layers = 10'000;  // more is a slip, and would only end when memory does

// A shape: the deck's, or that of the model folder, which the deck may only repeat.
template <class T>
T shape(const Section& deck, const char* key, const T* known) {
  if (known == nullptr) {
    return deck.get<T>(key);
  }
  const T value = deck.get<T>(key, *known);
  deck.check(value == *known, key, fmt::format("the model folder has {}", *known));
  return value;
}

template <class T>
T shape(const Section& deck, const char* key, const T* known, const T& fallback) {
  return known == nullptr ? deck.get<T>(key, fallback) : shape(deck, key, known);
}

void check_positive(const Section& deck, std::initializer_list<std::pair<const char*, int>> keys) {
  for (const auto& [key, value] : keys) {
    deck.check(value > 0, key, "must be positive");
  }
}

int read_rotary_width(const Section& deck, int head_width, const GatedAttentionConfig* folder) {
  const double known = folder ? 1.0 * folder->rotary_width / folder->head_width : 0.25;
  const double fraction = deck.get("rotary_fraction", known);
  deck.check(fraction > 0.0 && fraction <= 1.0, "rotary_fraction", "must be above 0 and at most 1");
  // A fraction like 1/3 arrives rounded down.
  const int width = static_cast<int>(std::floor(fraction * head_width + 1e-6));
  deck.check(width > 0 && width % 2 == 0, "rotary_fraction",
             fmt::format("gives {} rotated numbers of head_width {}; an even number is wanted",
                         width, head_width));
  deck.check(folder == nullptr || width == folder->rotary_width, "rotary_fraction",
             fmt::format("the model folder has {}", known));
  return width;
}

GatedAttentionConfig read_attention(const Section& deck, const ModelConfig& model,
                                    const GatedAttentionConfig* folder) {
  GatedAttentionConfig config;
  config.model_width = model.width;
  config.heads = shape(deck, "heads", folder ? &folder->heads : nullptr);
  config.key_value_heads =
      shape(deck, "key_value_heads", folder ? &folder->key_value_heads : nullptr);
  config.head_width = shape(deck, "head_width", folder ? &folder->head_width : nullptr);
  check_positive(deck, {{"heads", config.heads},
                        {"key_value_heads", config.key_value_heads},
                        {"head_width", config.head_width}});
  deck.check(config.heads % config.key_value_heads == 0, "heads",
             fmt::format("must be a multiple of key_value_heads, {}", config.key_value_heads));
  config.rotary_width = read_rotary_width(deck, config.head_width, folder);
  config.rotary_base = shape(deck, "rotary_base", folder ? &folder->rotary_base : nullptr, 1e7);
  deck.check(config.rotary_base > 1.0, "rotary_base", "must be above 1");
  config.norm_epsilon = model.norm_epsilon;
  config.init_deviation = model.init_deviation;
  return config;
}

GatedDeltaNetConfig read_delta_net(const Section& deck, const ModelConfig& model,
                                   const GatedDeltaNetConfig* folder) {
  GatedDeltaNetConfig config;
  config.model_width = model.width;
  config.key_heads = shape(deck, "key_heads", folder ? &folder->key_heads : nullptr);
  config.value_heads = shape(deck, "value_heads", folder ? &folder->value_heads : nullptr);
  config.key_width = shape(deck, "key_width", folder ? &folder->key_width : nullptr);
  config.value_width = shape(deck, "value_width", folder ? &folder->value_width : nullptr);
  config.conv_taps = shape(deck, "conv_taps", folder ? &folder->conv_taps : nullptr, 4);
  config.chunk = deck.get("chunk", 64);
  check_positive(deck, {{"key_heads", config.key_heads},
                        {"value_heads", config.value_heads},
                        {"key_width", config.key_width},
                        {"value_width", config.value_width}});
  deck.check(config.value_heads % config.key_heads == 0, "value_heads",
             fmt::format("must be a multiple of key_heads, {}", config.key_heads));
  deck.check(config.conv_taps >= 2 && config.conv_taps <= 6, "conv_taps", "must be from 2 to 6");
  deck.check(config.chunk >= 16 && config.chunk <= 64 && config.chunk % 16 == 0, "chunk",
             "must be 16, 32, 48 or 64");
  config.norm_epsilon = model.norm_epsilon;
  config.init_deviation = model.init_deviation;
  return config;
}

Capacity read_capacity(const Section& experts) {
  Capacity capacity;
  if (!experts.is_section("capacity")) {
    capacity.rule = experts.choose<Capacity::Rule>(
        "capacity", {{"dropless", Capacity::Rule::dropless}}, Capacity::Rule::dropless);
    return capacity;
  }
  const Section deck = experts.section("capacity");
  capacity.rule = deck.choose<Capacity::Rule>(
      "rule",
      {{"position", Capacity::Rule::position}, {"probability", Capacity::Rule::probability}});
  capacity.factor = deck.get<double>("factor");
  deck.check(capacity.factor > 0.0, "factor", "must be positive");
  return capacity;
}

BalanceLossConfig read_balance_loss(const Section& experts) {
  using Form = BalanceLossConfig::Form;
  using Scope = BalanceLossConfig::Scope;
  BalanceLossConfig config;
  const Section deck = experts.section("balance_loss");
  config.form = deck.choose<Form>("form",
                                  {{"none", Form::none},
                                   {"huggingface", Form::huggingface},
                                   {"megatron", Form::megatron},
                                   {"maxtext", Form::maxtext}},
                                  Form::none);
  config.coefficient = deck.get("coefficient", 0.0);
  deck.check(config.coefficient >= 0.0, "coefficient", "must not be negative");
  deck.check(config.coefficient == 0.0 || config.form != Form::none, "coefficient",
             "needs a form: huggingface, megatron or maxtext");
  if (config.form == Form::megatron) {
    config.scope = deck.choose<Scope>("scope",
                                      {{"microbatch", Scope::microbatch},
                                       {"sequence", Scope::sequence},
                                       {"global", Scope::global}},
                                      Scope::microbatch);
  }
  config.router_z_loss = experts.get("router_z_loss", 0.0);
  experts.check(config.router_z_loss >= 0.0, "router_z_loss", "must not be negative");
  return config;
}

MixtureOfExpertsConfig read_experts(const Section& deck, const ModelConfig& model,
                                    const MixtureOfExpertsConfig* folder) {
  MixtureOfExpertsConfig config;
  config.model_width = model.width;
  config.experts = shape(deck, "count", folder ? &folder->experts : nullptr);
  config.experts_per_token =
      shape(deck, "per_token", folder ? &folder->experts_per_token : nullptr);
  config.renormalise = shape(deck, "renormalise", folder ? &folder->renormalise : nullptr, true);
  config.expert_width = shape(deck, "width", folder ? &folder->expert_width : nullptr);
  config.shared_width = shape(deck, "shared_width", folder ? &folder->shared_width : nullptr, 0);
  check_positive(deck, {{"count", config.experts},
                        {"per_token", config.experts_per_token},
                        {"width", config.expert_width}});
  deck.check(config.experts_per_token <= config.experts, "per_token",
             fmt::format("must be at most count, {}", config.experts));
  deck.check(config.shared_width >= 0, "shared_width", "must not be negative");
  config.capacity = read_capacity(deck);
  config.init_deviation = model.init_deviation;
  return config;
}

std::vector<std::string> words_of(const std::vector<Mixer>& mixers) {
  std::vector<std::string> words;
  for (const Mixer mixer : mixers) {
    words.push_back(mixer == Mixer::attention ? "attention" : "delta_net");
  }
  return words;
}

std::vector<Mixer> read_mixer_list(const Section& deck, int layers, const ModelConfig* folder) {
  std::vector<Mixer> mixers;
  const auto words = folder ? deck.get("mixers", words_of(folder->mixers))
                            : deck.get<std::vector<std::string>>("mixers");
  for (const std::string& word : words) {
    deck.check(word == "delta_net" || word == "attention", "mixers",
               "each is delta_net or attention, not " + word);
    mixers.push_back(word == "attention" ? Mixer::attention : Mixer::delta_net);
  }
  deck.check(static_cast<int>(mixers.size()) == layers, "mixers",
             fmt::format("has {} entries for {} layers", mixers.size(), layers));
  return mixers;
}

std::vector<Mixer> read_mixers(const Section& deck, int layers, const ModelConfig* folder) {
  std::vector<Mixer> mixers;
  if (deck.is_list("mixers") || (folder && !deck.has("mixers"))) {
    mixers = read_mixer_list(deck, layers, folder);
  } else {
    const Section pattern = deck.section("mixers");
    const int every = pattern.get("full_attention_every", 4);
    pattern.check(every > 0, "full_attention_every", "must be positive");
    for (int i = 0; i < layers; ++i) {
      mixers.push_back((i + 1) % every == 0 ? Mixer::attention : Mixer::delta_net);
    }
  }
  deck.check(folder == nullptr || mixers == folder->mixers, "mixers",
             "the model folder has another order");
  return mixers;
}

std::vector<Mlp> read_mlps(const Section& deck, int layers, const ModelConfig* folder) {
  std::vector<int> known;
  for (int i = 0; folder && i < folder->layers(); ++i) {
    if (folder->mlps[i] == Mlp::dense) {
      known.push_back(i);
    }
  }
  std::vector<Mlp> mlps(layers, Mlp::experts);
  for (const int layer : deck.get("dense_layers", known)) {
    deck.check(layer >= 0 && layer < layers, "dense_layers",
               fmt::format("{} is no layer; they are 0 to {}", layer, layers - 1));
    mlps[layer] = Mlp::dense;
  }
  deck.check(folder == nullptr || mlps == folder->mlps, "dense_layers",
             "the model folder has others");
  return mlps;
}

}  // namespace

ModelConfig read_model(const Section& deck, const ModelConfig* folder) {
  ModelConfig model;
  model.init_deviation = deck.get("init_deviation", folder ? folder->init_deviation : 0.02);
  deck.check(model.init_deviation > 0.0, "init_deviation", "must be positive");
  model.vocabulary = shape(deck, "vocabulary", folder ? &folder->vocabulary : nullptr);
  model.width = shape(deck, "width", folder ? &folder->width : nullptr);
  check_positive(deck, {{"vocabulary", model.vocabulary}, {"width", model.width}});
  model.tied_head = shape(deck, "tied_head", folder ? &folder->tied_head : nullptr, false);
  model.norm_epsilon = shape(deck, "norm_epsilon", folder ? &folder->norm_epsilon : nullptr, 1e-6);
  deck.check(model.norm_epsilon > 0.0, "norm_epsilon", "must be positive");
  const int known_layers = folder ? folder->layers() : 0;
  const int layers = shape(deck, "layers", folder ? &known_layers : nullptr);
  deck.check(layers > 0 && layers <= most_layers, "layers",
             fmt::format("must be from 1 to {}", most_layers));
  model.mixers = read_mixers(deck, layers, folder);
  model.mlps = read_mlps(deck, layers, folder);
  model.layer.dense.width =
      shape(deck, "dense_width", folder ? &folder->layer.dense.width : nullptr, 0);
  const bool any_dense = std::count(model.mlps.begin(), model.mlps.end(), Mlp::dense) > 0;
  deck.check(!any_dense || model.layer.dense.width > 0, "dense_width",
             "must be positive, because there are dense_layers");
  model.layer.dense.model_width = model.width;
  model.layer.dense.init_deviation = model.init_deviation;
  model.layer.width = model.width;
  model.layer.norm_epsilon = model.norm_epsilon;
  model.layer.attention =
      read_attention(deck.section("attention"), model, folder ? &folder->layer.attention : nullptr);
  model.layer.delta_net =
      read_delta_net(deck.section("delta_net"), model, folder ? &folder->layer.delta_net : nullptr);
  const Section experts = deck.section("experts");
  model.layer.experts = read_experts(experts, model, folder ? &folder->layer.experts : nullptr);
  model.balance = read_balance_loss(experts);
  const Section mtp = deck.section("multi_token_prediction");
  model.mtp_modules = mtp.get("modules", folder ? folder->mtp_modules : 0);
  mtp.check(model.mtp_modules == 0 || model.mtp_modules == 1, "modules", "must be 0 or 1");
  return model;
}

}  // namespace qnext
