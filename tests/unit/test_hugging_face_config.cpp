// SPDX-License-Identifier: Apache-2.0
#include "io/hugging_face_config.hpp"
#include "io/json.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>

namespace qnext {
namespace {

using test::message_of;
using LayerType = HuggingFaceConfig::LayerType;
using Changes = std::map<std::string, std::string>;  // key -> JSON, empty: the key goes

constexpr LayerType L = LayerType::linear_attention, F = LayerType::full_attention;

/// The released form of a small model, with some keys changed.
std::string released(const Changes& changes = {}) {
  std::map<std::string, std::string> keys = {{"architectures", R"(["Qwen3NextForCausalLM"])"},
                                             {"model_type", R"("qwen3_next")"},
                                             {"vocab_size", "256"},
                                             {"hidden_size", "64"},
                                             {"num_hidden_layers", "4"},
                                             {"intermediate_size", "96"},
                                             {"rms_norm_eps", "1e-06"},
                                             {"initializer_range", "0.02"},
                                             {"tie_word_embeddings", "false"},
                                             {"max_position_embeddings", "1024"},
                                             {"torch_dtype", R"("bfloat16")"},
                                             {"full_attention_interval", "4"},
                                             {"num_attention_heads", "4"},
                                             {"num_key_value_heads", "2"},
                                             {"head_dim", "32"},
                                             {"rope_theta", "10000000"},
                                             {"rope_scaling", "null"},
                                             {"partial_rotary_factor", "0.25"},
                                             {"attention_bias", "false"},
                                             {"attention_dropout", "0.0"},
                                             {"use_sliding_window", "false"},
                                             {"hidden_act", R"("silu")"},
                                             {"linear_num_key_heads", "2"},
                                             {"linear_num_value_heads", "4"},
                                             {"linear_key_head_dim", "16"},
                                             {"linear_value_head_dim", "16"},
                                             {"linear_conv_kernel_dim", "4"},
                                             {"num_experts", "8"},
                                             {"num_experts_per_tok", "2"},
                                             {"moe_intermediate_size", "32"},
                                             {"shared_expert_intermediate_size", "48"},
                                             {"norm_topk_prob", "true"},
                                             {"router_aux_loss_coef", "0.001"},
                                             {"decoder_sparse_step", "1"},
                                             {"mlp_only_layers", "[]"},
                                             {"bos_token_id", "151643"},
                                             {"eos_token_id", "151645"},
                                             {"transformers_version", R"("4.57.0.dev0")"},
                                             {"use_cache", "true"},
                                             {"output_router_logits", "false"}};
  for (const auto& [key, value] : changes) {
    keys.insert_or_assign(key, value);
  }
  std::string text;
  for (const auto& [key, value] : keys) {
    if (!value.empty()) {
      text += (text.empty() ? "{" : ", ") + ("\"" + key + "\": ") + value;
    }
  }
  return text + "}";
}

HuggingFaceConfig with(const Changes& changes) {
  return HuggingFaceConfig::parse(released(changes), "config.json");
}

const Changes renewed = {
    {"full_attention_interval", ""},
    {"rope_theta", ""},
    {"rope_scaling", ""},
    {"partial_rotary_factor", ""},
    {"torch_dtype", ""},
    {"dtype", R"("bfloat16")"},
    {"layer_types",
     R"(["linear_attention", "linear_attention", "linear_attention", "full_attention"])"},
    {"rope_parameters",
     R"({"rope_type": "default", "rope_theta": 10000000, "partial_rotary_factor": 0.25})"}};

TEST(HuggingFaceConfig, ReadsBothForms) {
  for (const Changes& form : {Changes{}, renewed}) {
    const auto config = with(form);
    EXPECT_EQ(config.model_type, "qwen3_next");
    EXPECT_EQ(config.vocab_size, 256);
    EXPECT_EQ(config.hidden_size, 64);
    EXPECT_EQ(config.layer_types, (std::vector<LayerType>{L, L, L, F}));
    EXPECT_EQ(config.num_attention_heads, 4);
    EXPECT_EQ(config.num_key_value_heads, 2);
    EXPECT_EQ(config.head_dim, 32);
    EXPECT_EQ(config.rope_theta, 1e7);
    EXPECT_EQ(config.rotary_width(), 8);
    EXPECT_EQ(config.dtype, "bfloat16");
    EXPECT_EQ(config.linear_num_key_heads, 2);
    EXPECT_EQ(config.linear_num_value_heads, 4);
    EXPECT_EQ(config.linear_key_head_dim, 16);
    EXPECT_EQ(config.linear_value_head_dim, 16);
    EXPECT_EQ(config.linear_conv_kernel_dim, 4);
    EXPECT_EQ(config.num_experts, 8);
    EXPECT_EQ(config.num_experts_per_tok, 2);
    EXPECT_EQ(config.moe_intermediate_size, 32);
    EXPECT_EQ(config.shared_expert_intermediate_size, 48);
    EXPECT_TRUE(config.norm_topk_prob);
    EXPECT_EQ(config.rms_norm_eps, 1e-6);
    EXPECT_EQ(config.router_aux_loss_coef, 0.001);
    EXPECT_EQ(config.eos_token_ids, std::vector<int>{151645});
    EXPECT_EQ(config.bos_token_id, 151643);
    EXPECT_FALSE(config.pad_token_id.has_value());
    EXPECT_FALSE(config.num_nextn_predict_layers.has_value());
    EXPECT_TRUE(config.remarks.empty());
  }
}

TEST(HuggingFaceConfig, TakesLayersFromTheListBeforeTheInterval) {
  EXPECT_EQ(with({{"full_attention_interval", "2"}}).layer_types,
            (std::vector<LayerType>{L, F, L, F}));
  EXPECT_EQ(with({{"full_attention_interval", ""}}).layer_types,
            (std::vector<LayerType>{L, L, L, F}));
  EXPECT_EQ(with({{"layer_types", R"(["full_attention", "linear_attention", "linear_attention",
                                      "linear_attention"])"}})
                .layer_types,
            (std::vector<LayerType>{F, L, L, L}));
}

TEST(HuggingFaceConfig, KnowsDenseLayers) {
  const auto config = with({{"mlp_only_layers", "[3]"}, {"decoder_sparse_step", "2"}});
  EXPECT_FALSE(config.has_experts(0));
  EXPECT_TRUE(config.has_experts(1));
  EXPECT_FALSE(config.has_experts(2));
  EXPECT_FALSE(config.has_experts(3));
  EXPECT_EQ(config.intermediate_size, 96);
  EXPECT_EQ(with({{"intermediate_size", ""}}).intermediate_size, 0);
}

TEST(HuggingFaceConfig, TakesOneOrSeveralEndTokens) {
  EXPECT_EQ(with({{"eos_token_id", "[1, 2]"}}).eos_token_ids, (std::vector<int>{1, 2}));
  EXPECT_TRUE(with({{"eos_token_id", "null"}}).eos_token_ids.empty());
}

TEST(HuggingFaceConfig, RemarksOnWhatHasNoEffect) {
  const auto config = with({{"attention_dropout", "0.1"}, {"something_new", "[1, 2]"}});
  EXPECT_EQ(config.remarks, (std::vector<std::string>{
                                "attention_dropout = 0.1: is not applied",
                                "something_new = [1,2]: this key is not known and has no effect"}));
}

TEST(HuggingFaceConfig, AcceptsARopeThatSaysItIsPlain) {
  EXPECT_EQ(with({{"rope_scaling", R"({"type": "default"})"}}).rope_theta, 1e7);
  EXPECT_EQ(with({{"rope_scaling", R"({"rope_type": "default"})"}}).rope_theta, 1e7);
  EXPECT_EQ(
      with({{"partial_rotary_factor", "0.3333333333333333"}, {"head_dim", "24"}}).rotary_width(),
      8);
}

struct Refusal {
  Changes changes;
  std::string message;
};

TEST(HuggingFaceConfig, RefusesOtherMathematicsWithTheValueWanted) {
  for (const auto& [changes, message] : std::vector<Refusal>{
           {{{"model_type", "\"qwen2\""}}, "model_type = \"qwen2\": wanted is \"qwen3_next\""},
           {{{"model_type", ""}}, "model_type: is missing"},
           {{{"hidden_act", "\"gelu\""}}, "hidden_act = \"gelu\": wanted is \"silu\""},
           {{{"attention_bias", "true"}}, "attention_bias = true: wanted is false"},
           {{{"use_sliding_window", "true"}}, "use_sliding_window = true: wanted is false"},
           {{{"quantization_config", "{\"bits\": 4}"}},
            "quantization_config = {\"bits\":4}: wanted is no such key"},
           {{{"rope_scaling", R"({"rope_type": "yarn", "factor": 4.0})"}},
            "rope_scaling.rope_type = \"yarn\": wanted is \"default\""},
           {{{"rope_scaling", R"({"type": "linear"})"}},
            "rope_scaling.type = \"linear\": wanted is \"default\""},
           {{{"rope_parameters", R"({"rope_type": "default", "mrope_section": [1]})"}},
            "rope_parameters.mrope_section = [1]: wanted is no such key"},
           {{{"rope_parameters", R"({"rope_theta": 10000})"}},
            "rope_theta = 10000000: wanted is the value in rope_parameters, 10000"},
           {{{"rope_theta", ""}}, "rope_theta: is missing, and so is rope_parameters"},
           {{{"rope_theta", "-1"}}, "rope_theta = -1: wanted is a positive rope_theta"},
           {{{"partial_rotary_factor", "1.5"}},
            "partial_rotary_factor: turns 48 of 32 elements, wanted is an even part"},
           {{{"partial_rotary_factor", "1e300"}},
            "partial_rotary_factor: turns 1000000000000000 of 32 elements, wanted is an even part"},
           {{{"scoring_func", "\"sigmoid\""}}, "scoring_func = \"sigmoid\": wanted is \"softmax\""},
           {{{"attn_output_gate", "false"}}, "attn_output_gate = false: wanted is true"},
           {{{"routed_scaling_factor", "2.5"}}, "routed_scaling_factor = 2.5: wanted is 1"},
           {{{"final_logit_softcapping", "30.0"}},
            "final_logit_softcapping = 30.0: wanted is no such key"},
           {{{"linear_conv_kernel_dim", "1"}},
            "linear_conv_kernel_dim = 1: wanted is an integer from 2 to 6"},
           {{{"head_dim", "2147483640"}},
            "its widest matrix has 17179869120.000000 rows, wanted are at most 2147483647"},
           {{{"num_experts", "2000000000"}, {"hidden_size", "1000000000"}},
            "its model has more parameters than 64 bits count bytes of"},
           {{{"dtype", "\"float32\""}},
            "torch_dtype = \"bfloat16\": wanted is the value of dtype, \"float32\""},
           {{{"layer_types", R"(["full_attention"])"}},
            "layer_types: has 1 layers, num_hidden_layers is 4"},
           {{{"layer_types", R"(["mamba"])"}},
            "layer_types: holds \"mamba\", wanted is \"linear_attention\" or \"full_attention\""},
           {{{"head_dim", ""}}, "head_dim: is missing"},
           {{{"hidden_size", "0"}}, "hidden_size = 0: wanted is an integer from 1 on"},
           {{{"hidden_size", "99999999999"}},
            "hidden_size = 99999999999: wanted is an integer from 1 on"},
           {{{"hidden_size", "6.5"}}, "hidden_size = 6.5: is a number, wanted is an integer"},
           {{{"num_hidden_layers", "2000000000"}},
            "num_hidden_layers = 2000000000: wanted is at most 10000"},
           {{{"num_attention_heads", "5"}},
            "num_attention_heads = 5: wanted is a multiple of num_key_value_heads"},
           {{{"linear_num_value_heads", "3"}},
            "linear_num_value_heads = 3: wanted is a multiple of linear_num_key_heads"},
           {{{"num_experts_per_tok", "9"}},
            "num_experts_per_tok = 9: wanted is at most num_experts, 8"},
           {{{"rms_norm_eps", "-1e-6"}},
            "rms_norm_eps = -1e-06: wanted is a number that is not negative"},
           {{{"mlp_only_layers", "[-1]"}},
            "mlp_only_layers = [-1]: wanted is a list of integers from 0 on"},
           {{{"mlp_only_layers", "[0]"}, {"intermediate_size", ""}},
            "intermediate_size: is missing"},
           {{{"tie_word_embeddings", "1"}},
            "tie_word_embeddings = 1: is an integer, wanted is a boolean"},
       }) {
    EXPECT_EQ(message_of([&, &c = changes] { with(c); }), "config.json: " + message);
  }
}

TEST(HuggingFaceConfig, AcceptsKeysOfRelativesThatSayTheSame) {
  const auto config = with({{"attn_output_gate", "true"},
                            {"routed_scaling_factor", "1.0"},
                            {"scoring_func", "\"softmax\""},
                            {"final_logit_softcapping", "null"}});
  EXPECT_TRUE(config.remarks.empty());
}

TEST(HuggingFaceConfig, IsReadAgainAsItIsWritten) {
  for (const Changes& changes :
       {Changes{}, renewed, Changes{{"mlp_only_layers", "[0, 2]"}, {"eos_token_id", "[1, 2]"}},
        Changes{{"layer_types", R"(["full_attention", "linear_attention", "linear_attention",
                                   "linear_attention"])"}}}) {
    const auto config = with(changes);
    const auto again = HuggingFaceConfig::parse(config.text(), "config.json");
    EXPECT_EQ(again.text(), config.text());
    EXPECT_EQ(again.layer_types, config.layer_types);
    EXPECT_EQ(again.mlp_only_layers, config.mlp_only_layers);
    EXPECT_EQ(again.eos_token_ids, config.eos_token_ids);
    EXPECT_EQ(again.bos_token_id, config.bos_token_id);
    EXPECT_EQ(again.rope_theta, config.rope_theta);
    EXPECT_TRUE(again.remarks.empty());
  }
}

TEST(HuggingFaceConfig, ChangesTheDtypeAlone) {
  const std::string old_form = released(), new_form = released(renewed);
  EXPECT_EQ(config_with_dtype(old_form, "config.json", "bfloat16"), old_form);
  for (const std::string& text : {old_form, new_form}) {
    const std::string changed = config_with_dtype(text, "config.json", "float32");
    EXPECT_EQ(HuggingFaceConfig::parse(changed, "config.json").dtype, "float32");
    EXPECT_EQ(changed.find("torch_dtype") == changed.npos, text == new_form);
    EXPECT_EQ(config_with_dtype(changed, "config.json", "bfloat16"),
              config_with_dtype(config_with_dtype(text, "config.json", "float16"), "config.json",
                                "bfloat16"));
  }
}

TEST(HuggingFaceConfig, NamesAFileThatIsNotThere) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(message_of([&] { HuggingFaceConfig::read(folder / "none"); }),
            folder / "none" + ": no such folder");
  EXPECT_EQ(message_of([&] { HuggingFaceConfig::read(folder.path()); }),
            folder / "config.json" + ": no such file");
  test::write_bytes(folder / "config.json", "[]");
  EXPECT_EQ(message_of([&] { HuggingFaceConfig::read(folder.path()); }),
            folder / "config.json" + " = []: is a list, wanted is an object");
}

TEST(HuggingFaceConfig, ReadsTheGoldenModels) {
  const char* const shared = std::getenv("QNEXT_SHARED");
  const std::string golden = std::string(shared == nullptr ? "" : shared) + "/golden/";
  if (!std::filesystem::exists(golden)) {
    GTEST_SKIP() << "no golden data";
  }
  for (const char* const folder : {"tiny/hf", "tiny/hf_released", "odd/hf", "long/hf"}) {
    const auto config = HuggingFaceConfig::read(golden + folder);
    EXPECT_TRUE(config.remarks.empty()) << folder;
    EXPECT_EQ(config.rotary_width(), 8) << folder;
  }
  const auto odd = HuggingFaceConfig::read(golden + "odd/hf");
  EXPECT_EQ(odd.layer_types, (std::vector<LayerType>{F, L, L, F, L}));
  EXPECT_FALSE(odd.has_experts(2));
  EXPECT_TRUE(odd.tie_word_embeddings);
  const std::string path = golden + "odd/hf/config.released.json";
  EXPECT_EQ(HuggingFaceConfig::parse(Json::read(path).to_string(), path).layer_types,
            odd.layer_types);
}

}  // namespace
}  // namespace qnext
