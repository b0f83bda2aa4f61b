// SPDX-License-Identifier: Apache-2.0
#include "app/bytes.hpp"
#include "app/commands.hpp"
#include "app/hugging_face_model.hpp"
#include "app/import_hugging_face.hpp"
#include "app/model_source.hpp"
#include "app/restart.hpp"
#include "app/run_log.hpp"
#include "core/parameter.hpp"
#include "io/checkpoint.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/hash.hpp"
#include "io/hugging_face_config.hpp"
#include "io/safetensors.hpp"
#include "io/token_source.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

namespace qnext {
namespace {

namespace fs = std::filesystem;

void print(const std::string& text) {
  std::fputs((text + "\n").c_str(), stdout);
}

void print_model(const ModelConfig& model) {
  ParameterTable table;
  const Model<float> registered(model, ProcessGrid{}, table);
  std::string mixers;
  for (const Mixer mixer : model.mixers) {
    mixers += mixer == Mixer::attention ? 'A' : 'D';
  }
  print(fmt::format(
      "parameters={} layers={} width={} vocabulary={} experts={} per_token={} "
      "multi_token_prediction={}",
      table.global_elements(), model.layers(), model.width, model.vocabulary,
      model.layer.experts.experts, model.layer.experts.experts_per_token, model.mtp_modules));
  print("mixers=" + mixers + " (A attention, D delta net)");
}

constexpr std::size_t longest_text = 1000;

// A fingerprint is a hash of 64 bits, which the file holds as a signed number. Texts of several
// lines are files of a Hugging Face folder.
std::string shown(const std::string& name, const RecordValue& value) {
  const auto* const bits = std::get_if<std::int64_t>(&value);
  if (name == "fingerprint" && bits) {
    return fmt::format("{:016x}", static_cast<std::uint64_t>(*bits));
  }
  const auto* const text = std::get_if<std::string>(&value);
  const bool is_file = text && (text->size() > longest_text || text->find('\n') != text->npos);
  return is_file ? fmt::format("({} bytes)", text->size()) : to_string(value);
}

// The same form for both, so that two listings can be compared line by line.
void print_tensor(const std::string& name, std::string_view type,
                  const std::vector<std::int64_t>& extents, const std::string& hash) {
  print(fmt::format("{} {} {} {}", name, type, to_string(extents), hash));
}

void print_tensors(const std::string& path) {
  if (model_kind(path) != ModelKind::hugging_face) {
    for (const CheckpointTensor& tensor : list_checkpoint_tensors(checkpoint_of(path))) {
      print_tensor(tensor.name, name_of(tensor.type), tensor.extents, tensor.hash);
    }
    return;
  }
  const SafetensorsFolder folder(path);
  for (const std::string& name : folder.names()) {
    const SafeTensor& tensor = *folder.find(name);
    Hash hash;
    hash.add(tensor.bytes.data(), tensor.bytes.size());
    print_tensor(name, tensor.type, tensor.extents, hash.digits());
  }
}

void print_checkpoint(const std::string& path) {
  const CheckpointContent content = read_checkpoint_content(path);
  print(fmt::format("checkpoint {}: step={} size={}", path, content.step,
                    format_bytes(static_cast<std::int64_t>(fs::file_size(path)))));
  const ModelSource source = find_model(path, {}, "");
  print(fmt::format("precision={}", name_of(source.precision)));
  print_model(source.model);
  for (const auto& [name, record] : content.records) {
    for (const auto& [value, number] : record.values()) {
      print(fmt::format("{}.{}={}", name, value, shown(value, number)));
    }
  }
}

void print_run_folder(const std::string& path) {
  const auto found = CheckpointFolder((fs::path(path) / "checkpoints").string(), 1).find_newest();
  print("run folder " + path);
  for (const auto& refused : found.refused) {
    print(fmt::format("refused {}: {}", refused.path, refused.reason));
  }
  if (found.path.empty()) {
    print("it holds no whole checkpoint");
  } else {
    print_checkpoint(found.path);
  }
}

void print_hugging_face(const std::string& path) {
  const HuggingFaceConfig config = HuggingFaceConfig::read(path);
  ModelConfig model = model_config(config);
  model.mtp_modules = has_mtp_weights(path) ? 1 : 0;
  print(fmt::format("Hugging Face folder {}: {} dtype={}", path, config.model_type, config.dtype));
  print_model(model);
  for (const std::string& remark : config.remarks) {
    print(remark);
  }
}

bool is_token_file(const std::string& path) {
  const fs::path file(path);
  return file.extension() == ".bin" || file.extension() == ".idx" || fs::exists(path + ".idx");
}

void print_tokens(const std::string& path) {
  const auto source = open_indexed(path);
  print(fmt::format("token file {}: tokens={} documents={}", path, source->tokens(),
                    source->documents()));
}

}  // namespace

Status info(const InfoOptions& options) {
  const std::string& path = options.path;
  if (is_token_file(path)) {
    print_tokens(path);
    return Status::done;
  }
  switch (model_kind(path)) {
    case ModelKind::hugging_face:
      print_hugging_face(path);
      break;
    case ModelKind::run_folder:
      print_run_folder(path);
      break;
    case ModelKind::deck:
      throw InputError(path + ": is a deck; qnext plan says what it asks for");
    case ModelKind::checkpoint:
      print_checkpoint(path);
      break;
  }
  if (options.tensors) {
    print_tensors(path);
  }
  return Status::done;
}

}  // namespace qnext
