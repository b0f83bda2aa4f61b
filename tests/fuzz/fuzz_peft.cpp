// SPDX-License-Identifier: Apache-2.0
#include "app/hugging_face_model.hpp"
#include "app/peft_adapter.hpp"
#include "io/hugging_face_config.hpp"
#include "tests/fuzz/target.hpp"

#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <fstream>

// An input is adapter_config.json, a byte of zero, which no JSON has, and
// adapter_model.safetensors.
namespace qnext::fuzz {
namespace {

constexpr int width = 8, rank = 2, experts = 2;

/// A layer of each kind, with the shapes of `factors`.
const ModelConfig& model() {
  static const ModelConfig config = model_config(HuggingFaceConfig::parse(
      R"({"model_type":"qwen3_next","vocab_size":16,"hidden_size":8,"num_hidden_layers":2,)"
      R"("num_experts":2,"num_experts_per_tok":1,"moe_intermediate_size":4,)"
      R"("shared_expert_intermediate_size":4,"num_attention_heads":2,"num_key_value_heads":1,)"
      R"("head_dim":8,"rope_theta":1e4,"linear_num_key_heads":1,"linear_num_value_heads":2,)"
      R"("linear_key_head_dim":4,"linear_value_head_dim":4,"linear_conv_kernel_dim":4,)"
      R"("layer_types":["linear_attention","full_attention"]})",
      "config.json"));
  return config;
}

/// Both factors beside a projection (out, in), behind those that are there, or those of so many
/// projections in one tensor.
void add_factors(const std::string& projection, int out, int in, const std::string& type, int size,
                 std::string& header, std::string& numbers, int stacked = 1) {
  for (const auto& [name, rows, columns] :
       {std::tuple("lora_A", stacked * rank, in), std::tuple("lora_B", out, rank * stacked)}) {
    const std::size_t begin = numbers.size();
    numbers.append(static_cast<std::size_t>(rows * columns * size), '\x3e');
    header += fmt::format(
        R"({}"base_model.model.{}.{}.weight":{{"dtype":"{}","shape":[{},{}],"data_offsets":[{},{}]}})",
        header.empty() ? "" : ",", projection, name, type, rows, columns, begin, numbers.size());
  }
}

std::string input(const std::string& config, const std::string& header,
                  const std::string& numbers) {
  const std::string object = "{" + header + "}";
  const std::uint64_t length = object.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return config + '\0' + bytes + object + numbers;
}

std::string adapter_of_attention() {
  std::string header, numbers;
  add_factors("model.layers.1.self_attn.q_proj", 32, width, "F32", 4, header, numbers);
  add_factors("model.layers.1.self_attn.o_proj", width, 16, "F64", 8, header, numbers);
  return input(
      R"({"peft_type":"LORA","task_type":"CAUSAL_LM","base_model_name_or_path":"x","bias":"none",)"
      R"("fan_in_fan_out":false,"init_lora_weights":true,"lora_alpha":4,"lora_dropout":0.0,)"
      R"("modules_to_save":null,"r":2,"rank_pattern":{},"alpha_pattern":{"k_.*":3},)"
      R"("target_modules":["q_proj","o_proj"],"use_dora":false,"use_rslora":false})",
      header, numbers);
}

std::string adapter_of_all_kinds() {
  std::string header, numbers;
  add_factors("model.layers.0.linear_attn.out_proj", width, 8, "BF16", 2, header, numbers);
  add_factors("model.layers.0.mlp.shared_expert.gate_proj", 4, width, "F16", 2, header, numbers);
  add_factors("model.layers.1.mlp.shared_expert.down_proj", width, 4, "BF16", 2, header, numbers);
  return input(
      R"({"peft_type":"LORA","r":2,"lora_alpha":1.5,"use_rslora":true,"target_modules":"all-linear",)"
      R"("init_lora_weights":"gaussian","target_parameters":["mlp.shared_expert.gate_proj.weight"]})",
      header, numbers);
}

std::string adapter_of_experts() {
  std::string header, numbers;
  add_factors("model.layers.0.mlp.experts.base_layer", 8, width, "F32", 4, header, numbers,
              experts);
  add_factors("model.layers.0.mlp.experts", width, 4, "F32", 4, header, numbers, experts);
  add_factors("model.layers.1.mlp.experts", width, 4, "BF16", 2, header, numbers, experts);
  return input(R"({"peft_type":"LORA","r":2,"lora_alpha":2,"target_modules":[],)"
               R"("target_parameters":["mlp.experts.gate_up_proj","mlp.experts.down_proj"]})",
               header, numbers);
}

/// A folder with the two files of an adapter.
class Folder {
 public:
  Folder() {
    std::string name = "/dev/shm/qnext_fuzz_XXXXXX";
    path_ = mkdtemp(name.data()) == nullptr ? std::string(".") : name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  void write(const std::string& bytes) const {
    const std::size_t end = std::min(bytes.find('\0'), bytes.size());
    std::ofstream(path_ + "/adapter_config.json", std::ios::binary) << bytes.substr(0, end);
    std::ofstream(path_ + "/adapter_model.safetensors", std::ios::binary)
        << bytes.substr(std::min(end + 1, bytes.size()));
  }

 private:
  std::string path_;
};

}  // namespace

std::vector<std::string> seeds() {
  return {adapter_of_attention(), adapter_of_all_kinds(), adapter_of_experts()};
}

std::vector<std::string> words() {
  return {"null",
          "true",
          "\"\"",
          "[]",
          "{}",
          "{\"a\":1}",
          "-1",
          "2147483647",
          "1e308",
          "\"pissa\"",
          "\"all\"",
          "layer_replication",
          "alpha_pattern",
          "rank_pattern",
          "(a|b)*",
          "[0,",
          "BF16",
          "lora_A",
          "lora_B",
          "k_proj",
          "model.layers.0.",
          ".base_layer",
          std::string(1, '\0')};
}

}  // namespace qnext::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qnext;
  static const Kokkos::ScopeGuard kokkos;
  static const fuzz::Folder folder;
  folder.write({reinterpret_cast<const char*>(data), size});
  return fuzz::refuse_or_accept([&] {
    ModelConfig model = fuzz::model();
    model.adapters = read_peft_config(folder.path(), model);
    if (!model.adapters.any() || model.adapters.targets.empty()) {
      throw std::logic_error("an adapter is taken that is beside no projection");
    }
    // What is taken fits the model: nothing of it is refused behind its config.
    ParameterTable table;
    const Model<float> registered(model, ProcessGrid{}, table);
    table.lay_out(false);
    try {
      import_peft(folder.path(), table);
      read_peft_factors(folder.path(), table);
    } catch (const InputError& error) {
      throw std::logic_error(std::string("a config is taken whose tensors are not: ") +
                             error.what());
    }
  });
}
