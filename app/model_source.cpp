// SPDX-License-Identifier: Apache-2.0
#include "app/model_source.hpp"

#include "app/hugging_face_model.hpp"
#include "app/hugging_face_origin.hpp"
#include "app/peft_adapter.hpp"
#include "app/restart.hpp"
#include "core/require.hpp"
#include "io/checkpoint.hpp"
#include "io/deck.hpp"
#include "io/hugging_face_config.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <utility>

namespace qnext {
namespace {

namespace fs = std::filesystem;

DataType parse_precision(const std::string& word) {
  for (const DataType type : {DataType::float64, DataType::float32, DataType::bf16}) {
    if (name_of(type) == word) {
      return type;
    }
  }
  throw InputError("--precision " + word + ": wanted is double, float or bf16");
}

ModelSource from_hugging_face(const std::string& path, const std::string& precision,
                              const std::string& adapter) {
  ModelSource source;
  const HuggingFaceConfig config = HuggingFaceConfig::read(path);
  source.model = model_config(config);
  source.sequence = static_cast<int>(
      std::min<std::int64_t>(config.max_position_embeddings, std::numeric_limits<int>::max()));
  source.precision = parse_precision(precision.empty() ? "float" : precision);
  source.weights = {InitSettings::Kind::hugging_face, path, adapter};
  if (!adapter.empty()) {
    source.model.adapters = read_peft_config(adapter, source.model);
  }
  if (const fs::path tokenizer = fs::path(path) / "tokenizer.json"; fs::exists(tokenizer)) {
    source.tokenizer = tokenizer.string();
  }
  return source;
}

ModelSource from_checkpoint(const std::string& path, const std::string& precision) {
  const CheckpointContent content = read_checkpoint_content(path);
  const Deck deck =
      Deck::parse(content.resolved_deck, path + ":/deck/resolved",
                  {"model.init=random", "output.resume=latest", "fine_tune.lora.adapter=''"});
  const RunConfig config = read_run_config(deck);
  ModelSource source;
  source.model = config.model;
  source.precision = config.run.precision;
  source.sequence = config.data.sequence;
  source.tokenizer = config.data.train.front().tokenizer;
  if (!precision.empty() && parse_precision(precision) != source.precision) {
    throw InputError("--precision " + precision + ": the checkpoint " + path + " is " +
                     std::string(name_of(source.precision)));
  }
  source.weights = {InitSettings::Kind::checkpoint, path};
  if (auto origin = HuggingFaceOrigin::of_checkpoint(content)) {
    source.files = std::move(origin->files);
  }
  return source;
}

// Empty: it may be in the checkpoint.
const std::string& place_of_tokenizer(const ModelSource& source, const std::string& path) {
  return path.empty() ? source.tokenizer : path;
}

bool is_deck(const fs::path& path) {
  return path.extension() == ".yaml" || path.extension() == ".yml";
}

}  // namespace

std::string ModelSource::name_of_file(const std::string& name) const {
  return weights.path + (weights.kind == InitSettings::Kind::hugging_face ? "/" : ":/") + name;
}

std::optional<std::string> ModelSource::file(const std::string& name) const {
  if (weights.kind != InitSettings::Kind::hugging_face) {
    const auto found = files.find(name);
    return found == files.end() ? std::nullopt : std::optional(found->second);
  }
  std::ifstream in(name_of_file(name), std::ios::binary);
  return in ? std::optional(std::string(std::istreambuf_iterator<char>(in), {})) : std::nullopt;
}

ModelKind model_kind(const std::string& path) {
  if (!fs::exists(path)) {
    throw InputError(path + ": there is no such file or folder");
  }
  if (fs::is_directory(path)) {
    if (fs::exists(fs::path(path) / "config.json")) {
      return ModelKind::hugging_face;
    }
    if (fs::is_directory(fs::path(path) / "checkpoints")) {
      return ModelKind::run_folder;
    }
    throw InputError(path +
                     ": is neither a run folder (no checkpoints/) nor a Hugging Face folder "
                     "(no config.json)");
  }
  return is_deck(path) ? ModelKind::deck : ModelKind::checkpoint;
}

ModelSource find_model(const std::string& path, const std::vector<std::string>& overrides,
                       const std::string& precision, const std::string& adapter) {
  const ModelKind kind = model_kind(path);
  if (kind != ModelKind::hugging_face && !adapter.empty()) {
    throw InputError("--adapter " + adapter + ": comes beside a Hugging Face folder, and " + path +
                     " is none");
  }
  if (kind != ModelKind::deck && !overrides.empty()) {
    throw InputError(overrides.front() + ": only a deck has keys to replace, and " + path +
                     " is none");
  }
  switch (kind) {
    case ModelKind::hugging_face:
      return from_hugging_face(path, precision, adapter);
    case ModelKind::deck: {
      const RunConfig config = read_run_config(Deck::read(path, overrides));
      return from_checkpoint(checkpoint_of(config.output.folder), precision);
    }
    default:
      return from_checkpoint(checkpoint_of(path), precision);
  }
}

std::optional<Tokenizer> find_tokenizer(const ModelSource& source, const std::string& path) {
  if (const std::string& place = place_of_tokenizer(source, path); !place.empty()) {
    return Tokenizer::read(place);
  }
  const std::string name = "tokenizer.json";
  const auto kept = source.file(name);
  return kept ? std::optional(Tokenizer::parse(*kept, source.name_of_file(name))) : std::nullopt;
}

ChatStyle find_chat_style(const ModelSource& source, const std::string& path) {
  if (const std::string& place = place_of_tokenizer(source, path); !place.empty()) {
    return chat_style_of(place);
  }
  const std::string config = "tokenizer_config.json";
  return chat_style_of(source.file("chat_template.jinja"), source.file(config),
                       source.name_of_file(config));
}

}  // namespace qnext
