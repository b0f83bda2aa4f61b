// SPDX-License-Identifier: Apache-2.0
#include "io/hugging_face_config.hpp"

#include "core/require.hpp"
#include "io/json.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

namespace qnext {
namespace {

constexpr JsonLimits limits{.bytes = 10'000'000, .depth = 16};
constexpr int most_layers = 10'000;  // more is a slip, and would only end when memory does

/// Says nothing about the mathematics, or something that is asked for elsewhere.
const std::set<std::string> without_effect = {
    "architectures",        "transformers_version", "use_cache",
    "output_router_logits", "_name_or_path",        "output_attentions",
    "output_hidden_states", "return_dict",          "max_window_layers",
    "sliding_window"};

/// The members of an object, which remembers the ones that were asked for.
class Keys {
 public:
  Keys(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  /// Null when the key is absent or null.
  const Json* find(const std::string& key) {
    asked_.insert(key);
    const Json* const value = object_.find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  const Json& at(const std::string& key) {
    const Json* const value = find(key);
    if (value == nullptr) {
      throw InputError(where_ + ": " + key + ": is missing");
    }
    return *value;
  }
  std::string place(const std::string& key) const { return where_ + ": " + key; }

  [[noreturn]] void refuse(const std::string& key, const std::string& wanted) const {
    const Json* const value = object_.find(key);
    throw InputError(place(key) + " = " + (value == nullptr ? "absent" : value->to_string()) +
                     ": wanted is " + wanted);
  }

  int integer(const std::string& key, std::int64_t least) {
    const std::int64_t value = at(key).integer(place(key));
    if (value < least || value > std::numeric_limits<int>::max()) {
      refuse(key, "an integer from " + std::to_string(least) + " on");
    }
    return static_cast<int>(value);
  }
  int integer(const std::string& key, std::int64_t least, int otherwise) {
    return find(key) == nullptr ? otherwise : integer(key, least);
  }
  double real(const std::string& key, double otherwise) {
    const Json* const value = find(key);
    const double number = value == nullptr ? otherwise : value->real(place(key));
    if (!std::isfinite(number) || number < 0.0) {
      refuse(key, "a number that is not negative");
    }
    return number;
  }
  bool boolean(const std::string& key, bool otherwise) {
    const Json* const value = find(key);
    return value == nullptr ? otherwise : value->boolean(place(key));
  }
  std::string text(const std::string& key, const std::string& otherwise) {
    const Json* const value = find(key);
    return value == nullptr ? otherwise : value->text(place(key));
  }
  std::vector<int> integers(const std::string& key) {
    std::vector<int> numbers;
    if (const Json* const value = find(key)) {
      for (const Json& item : value->list(place(key))) {
        const std::int64_t number = item.integer(place(key));
        if (number < 0 || number > std::numeric_limits<int>::max()) {
          refuse(key, "a list of integers from 0 on");
        }
        numbers.push_back(static_cast<int>(number));
      }
    }
    return numbers;
  }

  std::vector<std::string> unasked() const {
    std::vector<std::string> lines;
    for (const auto& [key, value] : object_.object(where_)) {
      if (asked_.count(key) == 0 && without_effect.count(key) == 0) {
        lines.push_back(key + " = " + value.to_string().substr(0, 60) +
                        ": this key is not known and has no effect");
      }
    }
    return lines;
  }

 private:
  const Json& object_;
  std::string where_;
  std::set<std::string> asked_;
};

// What relatives of the model say with keys that Qwen3-Next has not, or has with one value alone. A
// folder that holds one of them is of another model, whatever it calls itself.
constexpr const char* must_be_false[] = {
    "attention_bias", "mlp_bias",     "use_bias",        "qkv_bias",          "use_sliding_window",
    "norm_bias",      "lm_head_bias", "rope_interleave", "parallel_residual", "is_encoder_decoder"};
constexpr const char* must_be_true[] = {"attn_output_gate", "use_qk_norm", "qk_norm", "is_causal"};
constexpr const char* must_be_one[] = {
    "routed_scaling_factor", "n_group",         "topk_group",         "embedding_multiplier",
    "residual_multiplier",   "logits_scaling",  "logit_scale",        "mup_scale",
    "scale_depth",           "scale_embedding", "num_shared_experts", "n_shared_experts"};
constexpr const char* must_be_absent[] = {"quantization_config",
                                          "text_config",
                                          "attn_logit_softcapping",
                                          "final_logit_softcapping",
                                          "router_logit_softcapping",
                                          "attention_multiplier",
                                          "query_pre_attn_scalar",
                                          "attention_chunk_size",
                                          "no_rope_layers",
                                          "swiglu_limit",
                                          "moe_layer_freq",
                                          "first_k_dense_replace",
                                          "kv_lora_rank"};

/// Keys that may only have the value that the model computes with.
void refuse_other_mathematics(Keys& keys) {
  if (keys.text("hidden_act", "silu") != "silu") {
    keys.refuse("hidden_act", "\"silu\"");
  }
  if (keys.text("scoring_func", "softmax") != "softmax") {
    keys.refuse("scoring_func", "\"softmax\"");
  }
  for (const char* const key : must_be_false) {
    if (keys.boolean(key, false)) {
      keys.refuse(key, "false");
    }
  }
  for (const char* const key : must_be_true) {
    if (!keys.boolean(key, true)) {
      keys.refuse(key, "true");
    }
  }
  for (const char* const key : must_be_one) {
    if (keys.real(key, 1.0) != 1.0) {
      keys.refuse(key, "1");
    }
  }
  for (const char* const key : must_be_absent) {
    if (keys.find(key) != nullptr) {
      keys.refuse(key, "no such key");
    }
  }
}

/// A RoPE that is scaled says so in rope_scaling (released) or in rope_parameters (transformers 5).
void refuse_scaled_rope(const Json& rope, const std::string& where) {
  for (const char* const key : {"rope_type", "type"}) {
    const Json* const type = rope.find(key);
    if (type != nullptr && !type->is_null() && type->text(where + "." + key) != "default") {
      throw InputError(where + "." + key + " = " + type->to_string() + ": wanted is \"default\"");
    }
  }
  for (const auto& [key, value] : rope.object(where)) {
    const bool known = key == "rope_type" || key == "type" || key == "rope_theta" ||
                       key == "partial_rotary_factor";
    if (!known) {
      throw InputError(where + "." + key + " = " + value.to_string().substr(0, 60) +
                       ": wanted is no such key");
    }
  }
}

/// From the key itself or from rope_parameters; in both it must be the same.
double rope_number(Keys& keys, const std::string& key) {
  const Json* const released = keys.find(key);
  const Json* const parameters = keys.find("rope_parameters");
  const Json* const renewed = parameters == nullptr ? nullptr : parameters->find(key);
  if (released == nullptr && renewed == nullptr) {
    return 0.0;
  }
  const std::string where = keys.place("rope_parameters." + key);
  const double value = renewed != nullptr ? renewed->real(where) : released->real(keys.place(key));
  if (released != nullptr && released->real(keys.place(key)) != value) {
    keys.refuse(key, "the value in rope_parameters, " + renewed->to_string());
  }
  if (!std::isfinite(value) || value <= 0.0) {
    keys.refuse(released != nullptr ? key : "rope_parameters", "a positive " + key);
  }
  return value;
}

void read_rope(Keys& keys, HuggingFaceConfig& config) {
  for (const char* const key : {"rope_scaling", "rope_parameters"}) {
    if (const Json* const rope = keys.find(key)) {
      refuse_scaled_rope(*rope, keys.place(key));
    }
  }
  config.rope_theta = rope_number(keys, "rope_theta");
  if (config.rope_theta == 0.0) {
    throw InputError(keys.place("rope_theta") + ": is missing, and so is rope_parameters");
  }
  const double fraction = rope_number(keys, "partial_rotary_factor");
  config.partial_rotary_factor = fraction == 0.0 ? 0.25 : fraction;
  const double turned = std::min(config.head_dim * config.partial_rotary_factor, 1e15);
  if (turned > config.head_dim || config.rotary_width() % 2 != 0) {
    throw InputError(keys.place("partial_rotary_factor") + ": turns " +
                     std::to_string(static_cast<std::int64_t>(turned)) + " of " +
                     std::to_string(config.head_dim) + " elements, wanted is an even part");
  }
}

void read_layers(Keys& keys, HuggingFaceConfig& config) {
  using LayerType = HuggingFaceConfig::LayerType;
  const int interval = keys.integer("full_attention_interval", 1, 4);
  const Json* const types = keys.find("layer_types");
  if (types == nullptr) {
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
      config.layer_types.push_back((layer + 1) % interval == 0 ? LayerType::full_attention
                                                               : LayerType::linear_attention);
    }
    return;
  }
  for (const Json& type : types->list(keys.place("layer_types"))) {
    const std::string& word = type.text(keys.place("layer_types"));
    if (word != "full_attention" && word != "linear_attention") {
      throw InputError(keys.place("layer_types") + ": holds \"" + word +
                       "\", wanted is \"linear_attention\" or \"full_attention\"");
    }
    config.layer_types.push_back(word == "full_attention" ? LayerType::full_attention
                                                          : LayerType::linear_attention);
  }
  if (static_cast<int>(config.layer_types.size()) != config.num_hidden_layers) {
    throw InputError(keys.place("layer_types") + ": has " +
                     std::to_string(config.layer_types.size()) + " layers, num_hidden_layers is " +
                     std::to_string(config.num_hidden_layers));
  }
}

void read_attention(Keys& keys, HuggingFaceConfig& config) {
  config.num_attention_heads = keys.integer("num_attention_heads", 1);
  config.num_key_value_heads = keys.integer("num_key_value_heads", 1);
  config.head_dim = keys.integer("head_dim", 1);
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    keys.refuse("num_attention_heads", "a multiple of num_key_value_heads");
  }
  config.attention_dropout = keys.real("attention_dropout", 0.0);
  if (config.attention_dropout != 0.0) {
    config.remarks.push_back("attention_dropout = " + keys.at("attention_dropout").to_string() +
                             ": is not applied");
  }
  read_rope(keys, config);
}

void read_delta_net(Keys& keys, HuggingFaceConfig& config) {
  config.linear_num_key_heads = keys.integer("linear_num_key_heads", 1);
  config.linear_num_value_heads = keys.integer("linear_num_value_heads", 1);
  config.linear_key_head_dim = keys.integer("linear_key_head_dim", 1);
  config.linear_value_head_dim = keys.integer("linear_value_head_dim", 1);
  config.linear_conv_kernel_dim = keys.integer("linear_conv_kernel_dim", 1);
  if (config.linear_conv_kernel_dim < 2 || config.linear_conv_kernel_dim > 6) {
    keys.refuse("linear_conv_kernel_dim", "an integer from 2 to 6");
  }
  if (config.linear_num_value_heads % config.linear_num_key_heads != 0) {
    keys.refuse("linear_num_value_heads", "a multiple of linear_num_key_heads");
  }
}

void read_experts(Keys& keys, HuggingFaceConfig& config) {
  config.num_experts = keys.integer("num_experts", 0);
  config.decoder_sparse_step = keys.integer("decoder_sparse_step", 1, 1);
  config.mlp_only_layers = keys.integers("mlp_only_layers");
  config.norm_topk_prob = keys.boolean("norm_topk_prob", true);
  config.router_aux_loss_coef = keys.real("router_aux_loss_coef", 0.001);
  int sparse = 0;
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    sparse += config.has_experts(layer);
  }
  const bool any_dense = sparse < config.num_hidden_layers;
  config.intermediate_size =
      any_dense ? keys.integer("intermediate_size", 1) : keys.integer("intermediate_size", 0, 0);
  if (config.num_experts > 0) {
    config.num_experts_per_tok = keys.integer("num_experts_per_tok", 1);
    config.moe_intermediate_size = keys.integer("moe_intermediate_size", 1);
    config.shared_expert_intermediate_size = keys.integer("shared_expert_intermediate_size", 0);
    if (config.num_experts_per_tok > config.num_experts) {
      keys.refuse("num_experts_per_tok",
                  "at most num_experts, " + std::to_string(config.num_experts));
    }
  }
}

/// Extents are held as int, and products of extents as 64 bits.
void refuse_sizes_that_wrap_around(const HuggingFaceConfig& c, const std::string& path) {
  const double D = c.hidden_size, E = c.num_experts, F = c.moe_intermediate_size;
  const double attention = 2.0 * c.num_attention_heads * c.head_dim;
  const double delta_net = 2.0 * c.linear_num_key_heads * c.linear_key_head_dim +
                           2.0 * c.linear_num_value_heads * c.linear_value_head_dim;
  const double widest = std::max({2.0 * D, attention, delta_net, 2.0 * F, 2.0 * c.vocab_size,
                                  2.0 * c.linear_num_value_heads, 2.0 * c.intermediate_size,
                                  2.0 * c.shared_expert_intermediate_size});
  if (widest > std::numeric_limits<int>::max()) {
    throw InputError(path + ": its widest matrix has " + std::to_string(widest) +
                     " rows, wanted are at most " +
                     std::to_string(std::numeric_limits<int>::max()));
  }
  const double taps = c.linear_conv_kernel_dim;
  const double layer = widest * (8.0 * D + taps + attention) + E * (3.0 * F + 1.0) * D;
  if (c.num_hidden_layers * layer + 2.0 * D * c.vocab_size > 0x1p58) {
    throw InputError(path + ": its model has more parameters than 64 bits count bytes of");
  }
}

std::optional<int> optional_integer(Keys& keys, const std::string& key) {
  return keys.find(key) == nullptr ? std::nullopt : std::optional(keys.integer(key, 0));
}

void read_tokens(Keys& keys, HuggingFaceConfig& config) {
  config.bos_token_id = optional_integer(keys, "bos_token_id");
  config.pad_token_id = optional_integer(keys, "pad_token_id");
  const Json* const end = keys.find("eos_token_id");
  if (end != nullptr && end->is_list()) {
    config.eos_token_ids = keys.integers("eos_token_id");
  } else if (end != nullptr) {
    config.eos_token_ids = {keys.integer("eos_token_id", 0)};
  }
}

std::string read_dtype(Keys& keys) {
  const std::string released = keys.text("torch_dtype", ""), renewed = keys.text("dtype", "");
  if (!released.empty() && !renewed.empty() && released != renewed) {
    keys.refuse("torch_dtype", "the value of dtype, \"" + renewed + "\"");
  }
  return renewed.empty() ? released : renewed;
}

HuggingFaceConfig config_of(const Json& json, const std::string& path) {
  json.object(path);
  Keys keys(json, path);
  HuggingFaceConfig config;
  config.model_type = keys.at("model_type").text(keys.place("model_type"));
  if (config.model_type != "qwen3_next") {
    keys.refuse("model_type", "\"qwen3_next\"");
  }
  refuse_other_mathematics(keys);
  config.vocab_size = keys.integer("vocab_size", 1);
  config.hidden_size = keys.integer("hidden_size", 1);
  config.num_hidden_layers = keys.integer("num_hidden_layers", 1);
  if (config.num_hidden_layers > most_layers) {
    keys.refuse("num_hidden_layers", "at most " + std::to_string(most_layers));
  }
  config.rms_norm_eps = keys.real("rms_norm_eps", 1e-6);
  config.initializer_range = keys.real("initializer_range", 0.02);
  config.tie_word_embeddings = keys.boolean("tie_word_embeddings", false);
  config.max_position_embeddings = keys.integer("max_position_embeddings", 0, 0);
  config.num_nextn_predict_layers = optional_integer(keys, "num_nextn_predict_layers");
  config.dtype = read_dtype(keys);
  read_layers(keys, config);
  read_attention(keys, config);
  read_delta_net(keys, config);
  read_experts(keys, config);
  refuse_sizes_that_wrap_around(config, path);
  read_tokens(keys, config);
  const auto unasked = keys.unasked();
  config.remarks.insert(config.remarks.end(), unasked.begin(), unasked.end());
  return config;
}

}  // namespace

bool HuggingFaceConfig::has_experts(int layer) const {
  const bool dense =
      std::find(mlp_only_layers.begin(), mlp_only_layers.end(), layer) != mlp_only_layers.end();
  return !dense && num_experts > 0 && (layer + 1) % decoder_sparse_step == 0;
}

HuggingFaceConfig HuggingFaceConfig::read(const std::string& folder) {
  const std::string path = folder + "/config.json";
  if (!std::filesystem::is_directory(folder)) {
    throw InputError(folder + ": no such folder");
  }
  if (!std::filesystem::exists(path)) {
    throw InputError(path + ": no such file");
  }
  return config_of(Json::read(path, limits), path);
}

HuggingFaceConfig HuggingFaceConfig::parse(const std::string& text, const std::string& path) {
  return config_of(Json::parse(text, path, limits), path);
}

}  // namespace qnext
