// SPDX-License-Identifier: Apache-2.0
#include "app/bytes.hpp"
#include "app/checkpoint_from_hugging_face.hpp"
#include "app/commands.hpp"
#include "app/export_hugging_face.hpp"
#include "app/model_source.hpp"
#include "app/peft_adapter.hpp"
#include "app/process_memory.hpp"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <utility>

namespace qnext {
namespace {

NumberFormat format_named(const std::string& word) {
  constexpr std::array<std::pair<const char*, NumberFormat>, 4> words = {
      {{"bf16", NumberFormat::bf16},
       {"half", NumberFormat::f16},
       {"float", NumberFormat::f32},
       {"double", NumberFormat::f64}}};
  for (const auto& [name, format] : words) {
    if (name == word) {
      return format;
    }
  }
  throw InputError("--dtype " + word + ": wanted is bf16, half, float or double");
}

ExportSettings settings_of(const ConvertOptions& options) {
  ExportSettings settings;
  if (!options.dtype.empty()) {
    settings.format = format_named(options.dtype);
  }
  if (!options.shard_size.empty()) {
    const auto bytes = parse_bytes(options.shard_size);
    if (!bytes || *bytes == 0) {
      throw InputError("--shard-size " + options.shard_size +
                       ": wanted are bytes or, for example, 5 GB");
    }
    settings.shard_bytes = *bytes;
  }
  return settings;
}

std::string import_folder(const ConvertOptions& options) {
  if (options.adapter_only) {
    throw InputError("--adapter-only: is of a run; " + options.from + " is a Hugging Face folder");
  }
  if (!options.dtype.empty() || !options.shard_size.empty()) {
    throw InputError(
        "--dtype and --shard-size are of a Hugging Face folder that is written; a checkpoint has "
        "the precision that holds the numbers of " +
        options.from);
  }
  if (std::filesystem::exists(options.to)) {
    throw InputError(options.to + ": is there already; it is not replaced");
  }
  const ConvertedCheckpoint converted = checkpoint_from_hugging_face(options.from, options.to);
  for (const std::string& remark : converted.remarks) {
    fmt::print("{}\n", remark);
  }
  return fmt::format("tensors={} bytes={} precision={}", converted.tensors, converted.bytes,
                     name_of(converted.precision));
}

std::string export_adapter(const ConvertOptions& options) {
  if (!options.dtype.empty() || !options.shard_size.empty()) {
    throw InputError("--dtype and --shard-size are not of an adapter: it has the type of the run");
  }
  const ExportedAdapter adapter = export_peft(options.from, options.to);
  return fmt::format("tensors={} bytes={}", adapter.tensors, adapter.bytes);
}

std::string export_folder(const ConvertOptions& options) {
  const ExportSettings settings = settings_of(options);
  const ExportedFolder folder =
      options.adapter.empty()
          ? export_hugging_face(options.from, options.to, settings)
          : merge_hugging_face(options.from, options.adapter, options.to, settings);
  for (const std::string& remark : folder.remarks) {
    fmt::print("{}\n", remark);
  }
  return fmt::format("tensors={} bytes={} files={} dtype={}", folder.tensors, folder.bytes,
                     folder.files, folder.dtype);
}

std::string convert_as_asked(const ConvertOptions& options) {
  if (!options.adapter.empty()) {
    if (options.to.ends_with(".h5")) {
      throw InputError(options.to + ": --adapter writes a Hugging Face folder, no checkpoint");
    }
    return export_folder(options);
  }
  if (model_kind(options.from) == ModelKind::hugging_face) {
    return import_folder(options);
  }
  return options.adapter_only ? export_adapter(options) : export_folder(options);
}

}  // namespace

Status convert(const ConvertOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string line = convert_as_asked(options);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  fmt::print("{} -> {}: {} seconds={:.2f} peak_memory={}\n", options.from, options.to, line,
             seconds.count(), peak_resident_bytes());
  return Status::done;
}

}  // namespace qnext
