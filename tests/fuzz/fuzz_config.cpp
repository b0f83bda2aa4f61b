// SPDX-License-Identifier: Apache-2.0
#include "app/hugging_face_model.hpp"
#include "io/hugging_face_config.hpp"
#include "tests/fuzz/target.hpp"

namespace qnext::fuzz {

std::vector<std::string> seeds() {
  const std::string shapes =
      R"("model_type":"qwen3_next","vocab_size":256,"hidden_size":64,"num_hidden_layers":4,)"
      R"("intermediate_size":96,"rms_norm_eps":1e-06,"initializer_range":0.02,"num_experts":8,)"
      R"("num_experts_per_tok":2,"moe_intermediate_size":32,"shared_expert_intermediate_size":48,)"
      R"("norm_topk_prob":true,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":32,)"
      R"("linear_num_key_heads":2,"linear_num_value_heads":4,"linear_key_head_dim":16,)"
      R"("linear_value_head_dim":16,"linear_conv_kernel_dim":4,"hidden_act":"silu",)"
      R"("tie_word_embeddings":false,"mlp_only_layers":[],"decoder_sparse_step":1,)";
  return {"{" + shapes +
              R"("full_attention_interval":4,"rope_theta":10000000,"rope_scaling":null,)"
              R"("partial_rotary_factor":0.25,"torch_dtype":"bfloat16"})",
          "{" + shapes +
              R"("layer_types":["linear_attention","linear_attention","full_attention",)"
              R"("linear_attention"],"rope_parameters":{"rope_type":"default","rope_theta":1e4,)"
              R"("partial_rotary_factor":0.5},"dtype":"float32","eos_token_id":[1,2]})"};
}

std::vector<std::string> words() {
  return {"null",
          "true",
          "-1",
          "2147483647",
          "1e308",
          "0.333",
          "\"gelu\"",
          "[]",
          "{}",
          "yarn",
          "attention_bias",
          "quantization_config",
          "[0,1,2,3]",
          "\"full_attention\",",
          "layer_types",
          "num_nextn_predict_layers",
          "1e-320",
          "0"};
}

}  // namespace qnext::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qnext;
  return fuzz::refuse_or_accept([&] {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const HuggingFaceConfig config = HuggingFaceConfig::parse(text, "config.json");
    const ModelConfig model = model_config(config);
    ParameterTable table;
    const Model<float> registered(model, ProcessGrid{}, table);
    if (table.global_elements() <= 0) {
      throw std::logic_error("a config is taken whose model has no parameters");
    }
    // What is taken can be written, and says the same again.
    const std::string again = config.text();
    if (HuggingFaceConfig::parse(again, "config.json").text() != again) {
      throw std::logic_error("a config changes when it is written and read");
    }
  });
}
