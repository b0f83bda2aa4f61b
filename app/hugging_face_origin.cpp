// SPDX-License-Identifier: Apache-2.0
#include "app/hugging_face_origin.hpp"

#include "io/mapped_file.hpp"
#include "io/safetensors.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <sstream>

namespace qnext {
namespace {

constexpr const char* record_name = "hugging_face";
constexpr const char* tensors_value = "tensors";
constexpr const char* updates_value = "updates";

constexpr std::int64_t largest_file = std::int64_t{1} << 28;

// What belongs to a model beside its weights. Everything else in a folder is of others.
constexpr const char* kept_files[] = {"config.json",         "generation_config.json",
                                      "tokenizer.json",      "tokenizer_config.json",
                                      "vocab.json",          "merges.txt",
                                      "added_tokens.json",   "special_tokens_map.json",
                                      "chat_template.jinja", "chat_template.json"};

std::string text_of(const std::string& path) {
  const MappedFile file(path);
  if (file.size() > largest_file) {
    throw InputError(fmt::format("{}: has {} bytes; a file beside the weights is kept up to {}",
                                 path, file.size(), largest_file));
  }
  std::string text(file.data() == nullptr ? "" : file.data(),
                   static_cast<std::size_t>(file.size()));
  if (text.find('\0') != std::string::npos) {
    throw InputError(path + ": holds a byte of zero, which no text does");
  }
  return text;
}

}  // namespace

HuggingFaceOrigin HuggingFaceOrigin::of_folder(const std::string& folder) {
  HuggingFaceOrigin origin;
  for (const char* const name : kept_files) {
    const std::string path = folder + "/" + name;
    if (std::filesystem::exists(path)) {
      origin.files[name] = text_of(path);
    }
  }
  const SafetensorsFolder weights(folder);
  for (const std::string& name : weights.names()) {
    origin.tensors[name] = format_of(*weights.find(name), folder + ": " + name);
  }
  return origin;
}

std::optional<HuggingFaceOrigin> HuggingFaceOrigin::of_checkpoint(
    const CheckpointContent& content) {
  if (content.records.count(record_name) == 0) {
    return std::nullopt;
  }
  const Record& record = content.record(record_name);
  HuggingFaceOrigin origin;
  origin.updates = record.get<std::int64_t>(updates_value);
  std::istringstream lines(record.get<std::string>(tensors_value));
  for (std::string word, name; lines >> word >> name;) {
    const auto format = number_format_named(word);
    if (!format) {
      throw InputError(
          fmt::format("{}.{}: {} has the format {}, which is none of BF16, F16, F32 "
                      "and F64",
                      record_name, tensors_value, name, word));
    }
    origin.tensors[name] = *format;
  }
  for (const char* const name : kept_files) {
    if (record.has(name)) {
      origin.files[name] = record.get<std::string>(name);
    }
  }
  return origin;
}

Record HuggingFaceOrigin::record() const {
  Record record(record_name);
  std::string lines;
  for (const auto& [name, format] : tensors) {
    lines += fmt::format("{} {}\n", name_of(format), name);
  }
  record.set(tensors_value, lines);
  record.set(updates_value, updates);
  for (const auto& [name, text] : files) {
    record.set(name, text);
  }
  return record;
}

}  // namespace qnext
