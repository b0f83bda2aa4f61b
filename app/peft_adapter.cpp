// SPDX-License-Identifier: Apache-2.0
#include "app/peft_adapter.hpp"

#include "app/fine_tune_section.hpp"
#include "app/folder_part.hpp"
#include "app/import_hugging_face.hpp"
#include "app/model_source.hpp"
#include "app/peft_factor.hpp"
#include "app/peft_ranks.hpp"
#include "app/precision.hpp"
#include "core/fence.hpp"
#include "io/checkpoint.hpp"
#include "io/checkpoint_stream.hpp"
#include "io/deck.hpp"
#include "io/json.hpp"
#include "io/safetensors.hpp"
#include "io/safetensors_writer.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <set>

namespace qnext {
namespace {

constexpr const char* config_file = "adapter_config.json";
constexpr const char* weights_name = "adapter_model";

// What would be other mathematics if it were set. What `target_modules` and `target_parameters`
// say, the factors say too.
constexpr const char* foreign_keys[] = {
    "use_dora",        "fan_in_fan_out",          "lora_bias",
    "modules_to_save", "layer_replication",       "use_qalora",
    "megatron_config", "trainable_token_indices", "alora_invocation_tokens"};

std::string weights_of(const std::string& folder) {
  return folder + "/" + weights_name + ".safetensors";
}

// A start that changes the weights of the base model too.
void check_start(const Json* json, const std::string& where) {
  if (json == nullptr || json->is_null() || json->is_boolean()) {
    return;
  }
  const std::string& word = json->text(where);
  if (word != "gaussian" && word != "eva" && word != "orthogonal") {
    throw InputError(fmt::format(
        "{} = {}: changes the weights of the base model and is not supported; PEFT turns such an "
        "adapter into a plain one",
        where, word));
  }
}

void check_config(const Json& config, const std::string& path) {
  const auto where = [&](const char* key) { return path + ": " + key; };
  const Json* const kind = config.find("peft_type");
  if (kind == nullptr || kind->text(where("peft_type")) != "LORA") {
    throw InputError(fmt::format("{}: peft_type is {}, expected \"LORA\"", path,
                                 kind == nullptr ? "absent" : kind->to_string()));
  }
  if (const Json* const bias = config.find("bias");
      !is_unset(bias) && bias->text(where("bias")) != "none") {
    throw InputError(
        fmt::format("{} = {}: is not supported, expected none", where("bias"), bias->to_string()));
  }
  for (const char* const key : foreign_keys) {
    if (const Json* const value = config.find(key); !is_unset(value)) {
      throw InputError(fmt::format("{} = {}: is not supported", where(key), value->to_string()));
    }
  }
  check_start(config.find("init_lora_weights"), where("init_lora_weights"));
}

// "model.layers.3.self_attn.q_proj" of each pair of factors, in the order of the model.
std::vector<std::string> projections_in(const SafetensorsFile& file, const ModelConfig& model,
                                        const PeftRanks& ranks) {
  std::set<std::string> left;
  for (const auto& [name, tensor] : file.tensors()) {
    left.insert(name);
  }
  if (model.mtp_modules == 0) {
    std::erase_if(left, [](const std::string& name) { return name.starts_with(peft_mtp); });
  }
  std::vector<std::string> found;
  for (const std::string& projection : adapter_projections(model)) {
    const std::string name = peft_prefix(file, model, projection);
    const std::string a = name + ".lora_A.weight", b = name + ".lora_B.weight";
    const auto of_a = file.tensors().find(a), of_b = file.tensors().find(b);
    if (of_a == file.tensors().end() && of_b == file.tensors().end()) {
      continue;
    }
    if (of_a == file.tensors().end() || of_b == file.tensors().end()) {
      throw InputError(
          fmt::format("{}: has one factor of {} and not the other", file.path(), projection));
    }
    const bool stacked = weight_of(projection) == projection;
    const int rank = ranks.of(projection);
    const std::int64_t rows = std::int64_t{rank} * (stacked ? model.layer.experts.experts : 1);
    const auto &ea = of_a->second.extents, &eb = of_b->second.extents;
    if (ea.size() != 2 || eb.size() != 2 || ea[0] != rows || eb[1] != rows) {
      throw InputError(fmt::format("{}: {}: the factors are not of rank {}, which the config says",
                                   file.path(), projection, rank));
    }
    left.erase(a);
    left.erase(b);
    left.erase(projection == "lm_head" ? peft_head : "");
    found.push_back(projection);
  }
  if (!left.empty() || found.empty()) {
    throw InputError(fmt::format(
        "{}: {} of its {} tensors are no factors beside a projection of this model{}", file.path(),
        left.size(), file.tensors().size(), left.empty() ? "" : ", the first is " + *left.begin()));
  }
  return found;
}

void check_extents(const SafetensorsFile& file, const SafeTensor& tensor, const std::string& name,
                   const std::vector<std::int64_t>& wanted) {
  if (tensor.extents != wanted) {
    throw InputError(fmt::format("{}: {}: has the extents ({}), wanted are ({})", file.path(), name,
                                 fmt::join(tensor.extents, ", "), fmt::join(wanted, ", ")));
  }
}

/// A factor as the table has it: its numbers in the order of the row.
struct TakenFactor {
  std::string name;
  SafeTensor tensor;
  std::vector<std::byte> ordered;  // its bytes, where the file has another order

  TakenFactor(const SafetensorsFile& file, const Parameter& row, const AdapterConfig& adapters) {
    const PeftFactor factor = peft_factor(row, adapters);
    name = factor.name;
    const auto found = file.tensors().find(name);
    if (found == file.tensors().end()) {
      throw InputError(file.path() + ": " + name + " is not there");
    }
    tensor = found->second;
    const std::int64_t width = bytes_of(format_of(tensor, name));
    const std::int64_t rank = rank_in(tensor, factor, adapters.rank);
    std::vector<std::int64_t> wanted = factor.extents;
    wanted[factor.rank_axis] = wanted[factor.rank_axis] / adapters.rank * rank;
    check_extents(file, tensor, name, wanted);
    if (factor.experts_last) {
      ordered = experts_first(row, tensor.bytes, width);
      tensor.bytes = ordered;
    }
    if (rank < adapters.rank) {
      ordered = raise_rank(tensor.bytes, factor.rows, rank, adapters.rank, factor.unit * width);
      tensor.bytes = ordered;
      tensor.extents = factor.extents;
    }
  }
  // At most the rank of the run.
  static std::int64_t rank_in(const SafeTensor& tensor, const PeftFactor& factor, int rank) {
    const auto axis = static_cast<std::size_t>(factor.rank_axis);
    const std::int64_t each = factor.extents[axis] / rank;  // experts, or 1
    const std::int64_t own = axis < tensor.extents.size() ? tensor.extents[axis] / each : rank;
    return std::clamp<std::int64_t>(own, 1, rank);
  }
  TakenFactor(const TakenFactor&) = delete;
  TakenFactor& operator=(const TakenFactor&) = delete;
};

// Before a model of that rank takes memory.
void check_factors(const SafetensorsFile& file, const AdapterConfig& adapters, ModelConfig model) {
  model.adapters = adapters;
  ParameterTable table;
  const Model<float> registered(model, ProcessGrid{}, table);
  for (const Parameter& row : table.rows()) {
    if (row.of_adapter) {
      const TakenFactor taken(file, row, adapters);
    }
  }
}

}  // namespace

AdapterConfig read_peft_config(const std::string& folder, const ModelConfig& model) {
  const std::string path = folder + "/" + config_file;
  const Json config = Json::read(path);
  check_config(config, path);
  const PeftRanks ranks(config, path);
  const SafetensorsFile file(weights_of(folder));
  const AdapterConfig adapters = ranks.of_all(projections_in(file, model, ranks));
  check_factors(file, adapters, model);
  return adapters;
}

namespace {

// The head's weight that stands beside its adapter, which takes the place of the folder's, as PEFT
// has it: they are the same unless it says so. Null: none.
const SafeTensor* head_in(const SafetensorsFile& file, const Parameter& row) {
  const auto found = file.tensors().find(peft_head);
  if (row.name != "lm_head.weight" || found == file.tensors().end()) {
    return nullptr;
  }
  const auto& extent = row.shard.global_extent;
  check_extents(file, found->second, peft_head, {extent[0], extent[1]});
  return &found->second;
}

}  // namespace

void import_peft(const std::string& folder, const ParameterTable& table) {
  const SafetensorsFile file(weights_of(folder));
  fence(Exec{}, "import: the adapters are overwritten");
  for (const Parameter& row : table.rows()) {
    if (const SafeTensor* const head = head_in(file, row)) {
      fill_row(table, row, {{peft_head, head->extents, {{}, row.shard.global_extent}}},
               [&](const std::string&) -> const SafeTensor& { return *head; });
    }
    if (!row.of_adapter) {
      continue;
    }
    const TakenFactor factor(file, row, table.adapters());
    const HuggingFaceTensor source = {
        factor.name, factor.tensor.extents, {{}, row.shard.global_extent}};
    fill_row(table, row, {source},
             [&](const std::string&) -> const SafeTensor& { return factor.tensor; });
  }
}

std::vector<std::byte> read_peft_head(const std::string& folder, const Parameter& row) {
  const SafetensorsFile file(weights_of(folder));
  const SafeTensor* const head = head_in(file, row);
  if (head == nullptr) {
    return {};
  }
  const NumberFormat to = number_format_of(row.type);
  std::vector<std::byte> numbers(static_cast<std::size_t>(head->elements() * bytes_of(to)));
  convert_numbers(format_of(*head, peft_head), head->bytes.data(), to, numbers.data(),
                  head->elements());
  return numbers;
}

AdapterFactors read_peft_factors(const std::string& folder, const ParameterTable& table) {
  const auto file = std::make_shared<const SafetensorsFile>(weights_of(folder));
  return {table, [file, &table](const Parameter& row) {
            const TakenFactor factor(*file, row, table.adapters());
            std::vector<double> numbers(static_cast<std::size_t>(factor.tensor.elements()));
            convert_elements(factor.tensor, factor.name, 0, factor.tensor.elements(),
                             numbers.data());
            return numbers;
          }};
}

namespace {

// "self_attn.q_proj" of "model.layers.3.self_attn.q_proj".
std::string behind_layer(const std::string& projection) {
  constexpr std::string_view layers = "model.layers.";
  return projection.substr(projection.find('.', layers.size()) + 1);
}

// Names of the adapted projections, without their layers where all layers have the adapter. With
// transformers 5, PEFT takes each target that ends with gate_proj, up_proj or down_proj for routed
// experts: those of others have to be named as parameters, which is the same arithmetic.
struct PeftTargets {
  Json::List modules, parameters;

  PeftTargets(const AdapterConfig& adapters, const ModelConfig& model) {
    std::map<std::string, int> missing;  // by what stands behind the layer
    for (const std::string& projection : adapter_projections(model)) {
      ++missing[behind_layer(projection)];
    }
    const std::vector<std::string> adapted = adapted_projections(adapters, model);
    for (const std::string& projection : adapted) {
      --missing[behind_layer(projection)];
    }
    std::set<std::string> names;
    for (const std::string& projection : adapted) {
      if (projection.starts_with("mtp.")) {
        continue;  // PEFT has no module for it and leaves its factors alone
      }
      const std::string name = behind_layer(projection);
      names.insert(missing.at(name) == 0 ? name : projection);
    }
    for (const std::string& name : names) {
      const bool of_mlp = name.find("mlp.") != name.npos;
      of_mlp ? parameters.push_back(Json::of(weight_of(name))) : modules.push_back(Json::of(name));
    }
  }
};

// What PEFT reads; of its other keys it takes the defaults.
std::string config_text(const AdapterConfig& adapters, const ModelConfig& model,
                        const std::string& base) {
  const PeftTargets targets(adapters, model);
  const Json::Object config{{"peft_type", Json::of(std::string("LORA"))},
                            {"task_type", Json::of(std::string("CAUSAL_LM"))},
                            {"base_model_name_or_path", Json::of(base)},
                            {"inference_mode", Json::of(true)},
                            {"r", Json::of(std::int64_t{adapters.rank})},
                            {"lora_alpha", Json::of(adapters.alpha)},
                            {"use_rslora", Json::of(adapters.rank_stabilised)},
                            {"lora_dropout", Json::of(0.0)},
                            {"bias", Json::of(std::string("none"))},
                            {"target_modules", Json::of(targets.modules)},
                            {"target_parameters", Json::of(targets.parameters)}};
  return Json::of(config).to_string() + "\n";
}

struct ExportAdapterAs {
  const ModelSource& source;
  const std::string& folder;

  template <class Storage>
  ExportedAdapter operator()() const {
    ParameterTable table;
    const Model<Storage> registered(source.model, ProcessGrid{}, table);
    const auto is_factor = [](const Parameter& row) { return row.of_adapter; };
    const auto factor_of = [&](const Parameter& row) { return peft_factor(row, table.adapters()); };
    std::vector<SafetensorsWriter::Entry> entries;
    for (const Parameter& row : table.rows()) {
      if (is_factor(row)) {
        const PeftFactor factor = factor_of(row);
        entries.push_back({factor.name, number_format_of(row.type), factor.extents});
      }
    }
    SafetensorsWriter writer(folder, entries, std::numeric_limits<std::int64_t>::max(),
                             weights_name);
    std::vector<std::byte> whole;  // of a factor whose numbers have another order in the file
    read_checkpoint_stream(
        source.weights.path, table,
        [&](const Parameter& row, std::int64_t begin, std::span<const std::byte> bytes) {
          const PeftFactor factor = factor_of(row);
          if (!factor.experts_last) {
            writer.write(factor.name, begin, bytes);
            return;
          }
          whole.insert(whole.end(), bytes.begin(), bytes.end());
          const std::int64_t all = row.shard.global_elements() * size_of(row.type);
          if (begin + static_cast<std::int64_t>(bytes.size()) == all) {
            writer.write(factor.name, 0, experts_last(row, whole, size_of(row.type)));
            whole.clear();
          }
        },
        is_factor);
    writer.finish();
    return {static_cast<std::int64_t>(entries.size()), writer.bytes()};
  }
};

// The folder that the run began with, as its deck says it.
std::string base_of(const std::string& checkpoint) {
  const CheckpointContent content = read_checkpoint_content(checkpoint);
  return Deck::parse(content.resolved_deck, checkpoint + ":/deck/resolved")
      .section("model")
      .get("init", "");
}

}  // namespace

ExportedAdapter export_peft(const std::string& checkpoint, const std::string& folder) {
  const ModelSource source = find_model(checkpoint, {}, "");
  if (!source.model.adapters.any()) {
    throw InputError(checkpoint + ": has no adapters; without --adapter-only the model is written");
  }
  FolderPart part(folder);
  const ExportedAdapter exported =
      with_storage(source.precision, ExportAdapterAs{source, part.path()});
  write_file(part.path() + "/" + config_file,
             config_text(source.model.adapters, source.model, base_of(source.weights.path)));
  part.finish();
  return exported;
}

}  // namespace qnext
