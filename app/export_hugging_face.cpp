// SPDX-License-Identifier: Apache-2.0
#include "app/export_hugging_face.hpp"

#include "app/folder_part.hpp"
#include "app/hugging_face_model.hpp"
#include "app/hugging_face_names.hpp"
#include "app/hugging_face_origin.hpp"
#include "app/hugging_face_stream.hpp"
#include "app/model_source.hpp"
#include "app/peft_adapter.hpp"
#include "app/precision.hpp"
#include "io/checkpoint_stream.hpp"
#include "io/hugging_face_config.hpp"
#include "io/posix_file.hpp"
#include "io/safetensors_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

namespace qnext {
namespace {

namespace fs = std::filesystem;

/// A tensor of the folder: a run of elements of a parameter.
struct Target {
  std::string name;
  NumberFormat format;
  std::vector<std::int64_t> extents;
  std::int64_t begin;     // first element in the parameter
  std::int64_t elements;  // in the parameter
};

/// What becomes of each parameter, by its name.
using Targets = std::map<std::string, std::vector<Target>>;

NumberFormat format_of(const HuggingFaceOrigin* origin, const ExportSettings& settings,
                       const std::string& name, DataType type) {
  const NumberFormat own = number_format_of(type);
  if (settings.format) {
    return *settings.format;
  }
  if (origin == nullptr || origin->updates > 0) {
    return own;
  }
  const auto it = origin->tensors.find(name);
  return it != origin->tensors.end() && holds(own, it->second) ? it->second : own;
}

std::vector<Target> targets_of(const Parameter& row, const HuggingFaceOrigin* origin,
                               const ExportSettings& settings) {
  const bool stacked = origin != nullptr && origin->tensors.count(row.name) > 0;
  std::vector<Target> targets;
  std::int64_t begin = 0;
  for (const HuggingFaceTensor& tensor :
       hugging_face_tensors(row, stacked ? ExpertLayout::stacked : ExpertLayout::one_by_one)) {
    const std::int64_t elements = tensor.box.elements();
    targets.push_back({tensor.name, format_of(origin, settings, tensor.name, row.type),
                       tensor.extents, begin, elements});
    begin += elements;
  }
  return targets;
}

Targets targets_of(const ParameterTable& table, const HuggingFaceOrigin* origin,
                   const ExportSettings& settings) {
  Targets targets;
  for (const Parameter& row : table.rows()) {
    if (row.of_adapter) {
      continue;  // goes into the weight that it is beside
    }
    if (row.alias_of.empty()) {
      targets[row.name] = targets_of(row, origin, settings);
    } else if (origin != nullptr && origin->tensors.count(row.name) > 0) {
      Target again = targets.at(row.alias_of).front();  // a tied head that stood there twice
      again.name = row.name;
      targets[row.alias_of].push_back(again);
    }
  }
  return targets;
}

/// In the order of the model.
std::vector<SafetensorsWriter::Entry> entries_of(const ParameterTable& table,
                                                 const Targets& targets) {
  std::vector<SafetensorsWriter::Entry> entries;
  for (const Parameter& row : table.rows()) {
    const auto it = targets.find(row.name);
    for (const Target& target : it == targets.end() ? std::vector<Target>{} : it->second) {
      entries.push_back({target.name, target.format, target.extents});
    }
  }
  return entries;
}

/// Hands what a piece of a parameter and its targets have in common to the writer, with adapters
/// merged into their weights.
class Export {
 public:
  Export(const Targets& targets, AdapterFactors& adapters, SafetensorsWriter& writer)
      : targets_(targets), adapters_(adapters), writer_(writer) {}

  void operator()(const Parameter& row, std::int64_t begin, std::span<const std::byte> bytes) {
    const NumberFormat from = number_format_of(row.type);
    const std::int64_t first = begin / bytes_of(from);
    if (!adapters_.beside(row)) {
      spread(row, from, first, bytes);
      return;
    }
    merged_.resize(bytes.size() / bytes_of(from));
    convert_numbers(from, bytes.data(), NumberFormat::f64,
                    reinterpret_cast<std::byte*>(merged_.data()),
                    static_cast<std::int64_t>(merged_.size()));
    adapters_.add(row, first, merged_);
    spread(row, NumberFormat::f64, first, std::as_bytes(std::span<const double>(merged_)));
  }

 private:
  // Merged weights come in double and are rounded once, to the format of the file.
  void spread(const Parameter& row, NumberFormat from, std::int64_t begin,
              std::span<const std::byte> bytes) {
    const std::int64_t wide = bytes_of(from);
    const auto end = begin + static_cast<std::int64_t>(bytes.size()) / wide;
    for (const Target& target : targets_.at(row.name)) {
      const std::int64_t first = std::max(begin, target.begin);
      const std::int64_t last = std::min(end, target.begin + target.elements);
      if (first < last) {
        write(target, from, first - target.begin,
              bytes.subspan((first - begin) * wide, (last - first) * wide));
      }
    }
  }

  void write(const Target& target, NumberFormat from, std::int64_t first,
             std::span<const std::byte> bytes) {
    const std::int64_t begin = first * bytes_of(target.format);
    if (from == target.format) {
      writer_.write(target.name, begin, bytes);
      return;
    }
    const auto count = static_cast<std::int64_t>(bytes.size()) / bytes_of(from);
    converted_.resize(static_cast<std::size_t>(count * bytes_of(target.format)));
    convert_numbers(from, bytes.data(), target.format, converted_.data(), count);
    writer_.write(target.name, begin, converted_);
  }

  const Targets& targets_;
  AdapterFactors& adapters_;
  SafetensorsWriter& writer_;
  std::vector<std::byte> converted_;
  std::vector<double> merged_;
};

std::string dtype_named(NumberFormat format) {
  switch (format) {
    case NumberFormat::bf16:
      return "bfloat16";
    case NumberFormat::f16:
      return "float16";
    case NumberFormat::f32:
      return "float32";
    default:
      return "float64";
  }
}

/// The format that most numbers have: transformers turns all of them into it.
NumberFormat usual_format(const std::vector<SafetensorsWriter::Entry>& entries) {
  std::map<NumberFormat, std::int64_t> elements;
  for (const auto& entry : entries) {
    elements[entry.format] += entry.bytes() / bytes_of(entry.format);
  }
  return std::max_element(elements.begin(), elements.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

/// config.json and what was beside it.
void write_texts(const std::string& folder, const ModelSource& source,
                 const HuggingFaceOrigin* origin, const std::string& dtype, bool as_kept) {
  for (const auto& [name, text] : origin == nullptr ? decltype(origin->files){} : origin->files) {
    write_file(folder + "/" + name,
               name == "config.json" && !as_kept ? config_with_dtype(text, name, dtype) : text);
  }
  if (origin == nullptr || origin->files.count("config.json") == 0) {
    HuggingFaceConfig config = hugging_face_config(source.model);
    config.max_position_embeddings = source.sequence;
    config.dtype = dtype;
    write_file(folder + "/config.json", config.text());
  }
}

AdapterFactors factors_of(const InitSettings& weights, const ParameterTable& table) {
  return weights.adapter.empty() ? AdapterFactors(weights.path, table)
                                 : read_peft_factors(weights.adapter, table);
}

/// Gives all weights but those of adapters. Returns remarks on the rest.
std::vector<std::string> read_weights(const InitSettings& weights, const ParameterTable& table,
                                      const Taker& taker) {
  if (weights.kind == InitSettings::Kind::checkpoint) {
    read_checkpoint_stream(weights.path, table, taker,
                           [](const Parameter& row) { return !row.of_adapter; });
    return {};
  }
  const SafetensorsFolder folder(weights.path);
  HuggingFaceStream stream(folder, table);
  for (const Parameter& row : table.rows()) {
    const auto head =
        weights.adapter.empty() ? std::vector<std::byte>() : read_peft_head(weights.adapter, row);
    if (!head.empty()) {
      taker(row, 0, head);
      continue;
    }
    std::int64_t begin = 0;
    stream(row, [&](std::span<const std::byte> bytes) {
      taker(row, begin, bytes);
      begin += static_cast<std::int64_t>(bytes.size());
    });
  }
  return stream.remarks();
}

struct ExportAs {
  const std::string& folder;
  const ExportSettings& settings;
  const ModelSource& source;
  const HuggingFaceOrigin* origin;

  template <class Storage>
  ExportedFolder operator()() const {
    ParameterTable table;
    const Model<Storage> registered(source.model, ProcessGrid{}, table);
    const Targets targets = targets_of(table, origin, settings);
    const auto entries = entries_of(table, targets);
    const bool as_kept =
        origin != nullptr &&
        std::all_of(entries.begin(), entries.end(), [&](const SafetensorsWriter::Entry& entry) {
          const auto it = origin->tensors.find(entry.name);
          return it != origin->tensors.end() && it->second == entry.format;
        });
    const std::string dtype = dtype_named(usual_format(entries));
    SafetensorsWriter writer(folder, entries, settings.shard_bytes);
    AdapterFactors adapters = factors_of(source.weights, table);
    Export taker(targets, adapters, writer);
    const auto remarks = read_weights(source.weights, table, std::ref(taker));
    write_texts(folder, source, origin, dtype, as_kept);
    writer.finish();
    return {static_cast<std::int64_t>(entries.size()), writer.bytes(), writer.files(), dtype,
            remarks};
  }
};

ExportedFolder export_model(const ModelSource& source, const HuggingFaceOrigin* origin,
                            const std::string& folder, const ExportSettings& settings) {
  FolderPart part(folder);
  const ExportedFolder exported =
      with_storage(source.precision, ExportAs{part.path(), settings, source, origin});
  part.finish();
  return exported;
}

}  // namespace

ExportedFolder export_hugging_face(const std::string& checkpoint, const std::string& folder,
                                   const ExportSettings& settings) {
  const ModelSource source = find_model(checkpoint, {}, "");
  auto origin = HuggingFaceOrigin::of_checkpoint(read_checkpoint_content(source.weights.path));
  if (origin && source.model.adapters.any()) {
    ++origin->updates;  // merged weights are no longer those of the folder
  }
  return export_model(source, origin ? &*origin : nullptr, folder, settings);
}

ExportedFolder merge_hugging_face(const std::string& from, const std::string& adapter,
                                  const std::string& to, const ExportSettings& settings) {
  ModelSource source = find_model(from, {}, "", adapter);
  source.model = model_of_folder(from);
  source.precision = precision_of_folder(from, source.model);
  source.model.adapters = read_peft_config(adapter, source.model);
  const HuggingFaceOrigin origin = HuggingFaceOrigin::of_folder(from);
  return export_model(source, &origin, to, settings);
}

}  // namespace qnext
