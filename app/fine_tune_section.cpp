// SPDX-License-Identifier: Apache-2.0
#include "app/fine_tune_section.hpp"

#include "app/peft_adapter.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

namespace qnext {
namespace {

constexpr const char* all_linear = "all-linear";
constexpr const char* experts = "experts.";
constexpr const char* lm_head = "lm_head";
constexpr const char* mtp = "mtp.";

// The last word of the name, or two of stacked experts.
std::string last_words(const std::string& projection) {
  const std::string word = projection.substr(projection.rfind('.') + 1);
  return weight_of(projection) == projection ? experts + word : word;
}

// Those of the projections, each once, in the order of the model. The module for multi-token
// prediction is left out, as it is in transformers.
std::vector<std::string> projection_words(const std::vector<std::string>& projections) {
  std::vector<std::string> words;
  for (const std::string& projection : projections) {
    if (projection.starts_with(mtp)) {
      continue;
    }
    const std::string word = last_words(projection);
    if (std::find(words.begin(), words.end(), word) == words.end()) {
      words.push_back(word);
    }
  }
  return words;
}

// Those that are linear modules of transformers and not the head, which the word stands for.
std::vector<std::string> linear_words(const ModelConfig& model) {
  std::vector<std::string> projections = adapter_projections(model);
  std::erase_if(projections, [](const std::string& each) {
    return weight_of(each) == each || each.ends_with(".mlp.gate") || each == lm_head;
  });
  return projection_words(projections);
}

void check_known(const Section& lora, const char* key, const std::vector<std::string>& targets,
                 const ModelConfig& model) {
  const std::string unknown = unknown_target(targets, model);
  lora.check(unknown.empty(), key, unknown);
}

// A list of names, or the word for all linear modules.
std::vector<std::string> read_modules(const Section& lora, const ModelConfig& model) {
  constexpr const char* key = "target_modules";
  if (!lora.is_list(key)) {
    lora.check(lora.get<std::string>(key) == all_linear, key,
               fmt::format("must be a list of names or {}", all_linear));
    return linear_words(model);
  }
  const auto targets = lora.get<std::vector<std::string>>(key);
  check_known(lora, key, targets, model);
  return targets;
}

// Names of parameters, which are those of projections with ".weight" behind them, or of stacked
// experts: PEFT wants no more than the last word of these.
std::vector<std::string> read_parameters(const Section& lora, const ModelConfig& model) {
  constexpr const char* key = "target_parameters";
  auto targets = lora.get<std::vector<std::string>>(key, {});
  for (std::string& target : targets) {
    const bool stacked = target.find('.') == target.npos;
    target = stacked ? experts + target : projection_of(target);
  }
  check_known(lora, key, targets, model);
  return targets;
}

// What both lists name; those of a folder may be repeated.
std::vector<std::string> read_targets(const Section& lora, const ModelConfig& model,
                                      const AdapterConfig* folder) {
  constexpr const char* key = "target_modules";
  std::vector<std::string> targets = read_parameters(lora, model);
  if (!lora.has(key) && !targets.empty()) {
    return targets;
  }
  if (!lora.has(key) && folder != nullptr) {
    return lora.get<std::vector<std::string>>(key, folder->targets);
  }
  const auto modules = read_modules(lora, model);
  targets.insert(targets.end(), modules.begin(), modules.end());
  lora.check(!targets.empty(), key, "names no projection");
  return targets;
}

void add_layer(const std::string& layer, Mixer mixer, Mlp mlp, bool shared_expert,
               std::vector<std::string>& projections) {
  const auto add = [&](const char* part, std::initializer_list<const char*> words) {
    for (const char* const word : words) {
      projections.push_back(layer + part + "." + word);
    }
  };
  if (mixer == Mixer::attention) {
    add("self_attn", {"q_proj", "k_proj", "v_proj", "o_proj"});
  } else {
    add("linear_attn", {"in_proj_qkvz", "in_proj_ba", "out_proj"});
  }
  if (mlp == Mlp::dense) {
    add("mlp", {"gate_proj", "up_proj", "down_proj"});
    return;
  }
  add("mlp", {"gate"});
  add("mlp.experts", {"gate_up_proj", "down_proj"});
  if (shared_expert) {
    add("mlp.shared_expert", {"gate_proj", "up_proj", "down_proj"});
    add("mlp", {"shared_expert_gate"});
  }
}

void check_folder(const Section& lora, const AdapterConfig& adapters, const AdapterConfig& folder,
                  const ModelConfig& model) {
  lora.check(adapters.rank == folder.rank, "r", fmt::format("the adapter has {}", folder.rank));
  lora.check(adapters.alpha == folder.alpha, "lora_alpha",
             fmt::format("the adapter has {}", folder.alpha));
  lora.check(adapters.rank_stabilised == folder.rank_stabilised, "use_rslora",
             fmt::format("the adapter has {}", folder.rank_stabilised));
  lora.check(adapted_projections(adapters, model) == adapted_projections(folder, model),
             "target_modules", "the adapter is beside other projections");
}

}  // namespace

std::vector<std::string> adapter_projections(const ModelConfig& model) {
  std::vector<std::string> projections;
  for (int i = 0; i < model.layers(); ++i) {
    add_layer(fmt::format("model.layers.{}.", i), model.mixers[i], model.mlps[i],
              model.layer.experts.shared_width > 0, projections);
  }
  if (!model.tied_head) {
    projections.push_back(lm_head);
  }
  if (model.mtp_modules > 0) {
    projections.push_back("mtp.fc");
    add_layer("mtp.layers.0.", Mixer::attention, Mlp::experts, model.layer.experts.shared_width > 0,
              projections);
  }
  return projections;
}

std::vector<std::string> adapted_projections(const AdapterConfig& adapters,
                                             const ModelConfig& model) {
  std::vector<std::string> names = adapter_projections(model);
  std::erase_if(names,
                [&](const std::string& name) { return !adapters.targets_weight(weight_of(name)); });
  return names;
}

std::string unknown_target(const std::vector<std::string>& targets, const ModelConfig& model) {
  const auto projections = adapter_projections(model);
  for (const std::string& target : targets) {
    if (target == lm_head && model.tied_head) {
      return "lm_head is the embedding of this model, which takes no adapter";
    }
    const AdapterConfig one{.rank = 1, .targets = {target}};
    if (std::none_of(projections.begin(), projections.end(), [&](const std::string& projection) {
          return one.targets_weight(weight_of(projection));
        })) {
      return fmt::format("{} names no projection that an adapter can be beside; there are {}",
                         target, fmt::join(projection_words(projections), ", "));
    }
  }
  return "";
}

FineTune read_fine_tune(const Section& fine_tune, const ModelConfig& model) {
  const Section lora = fine_tune.section("lora");
  FineTune settings;
  settings.adapter = lora.get("adapter", "");
  std::optional<AdapterConfig> folder;
  if (!settings.adapter.empty()) {
    folder = read_peft_config(settings.adapter, model);
  }
  AdapterConfig& adapters = settings.adapters;
  adapters = folder.value_or(AdapterConfig{});
  adapters.rank = lora.get("r", adapters.rank);
  lora.check(adapters.rank >= 0, "r", "must not be negative; 0: all weights are trained");
  if (!folder && !adapters.any()) {
    return settings;
  }
  adapters.alpha = lora.get("lora_alpha", adapters.alpha);
  lora.check(adapters.alpha > 0.0, "lora_alpha", "must be positive");
  adapters.rank_stabilised = lora.get("use_rslora", adapters.rank_stabilised);
  lora.check(lora.get("lora_dropout", 0.0) == 0.0, "lora_dropout",
             "is not supported; run.dropout drops out of the residual branches");
  adapters.targets = read_targets(lora, model, folder ? &*folder : nullptr);
  if (folder) {
    check_folder(lora, adapters, *folder, model);
  }
  return settings;
}

}  // namespace qnext
