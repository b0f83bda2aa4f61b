// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors.hpp"

#include "core/require.hpp"
#include "io/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <set>

namespace qnext {
namespace {

// The reference implementation reads no longer header either.
constexpr std::int64_t longest_header = 100'000'000;
constexpr std::int64_t length_bytes = 8;

/// Bytes of an element, 0 for a type that the format does not have.
int element_bytes(const std::string& type) {
  static const std::map<std::string, int> sizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
      {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8}};
  const auto it = sizes.find(type);
  return it == sizes.end() ? 0 : it->second;
}

const Json& member(const Json& object, const char* name, const std::string& where) {
  const Json* const value = object.find(name);
  if (value == nullptr) {
    throw InputError(fmt::format("{}: has no {}", where, name));
  }
  return *value;
}

struct Range {
  std::int64_t begin;
  std::int64_t end;
};

/// Type, extents and place of one tensor; `available` bytes follow the header.
SafeTensor read_entry(const Json& entry, const std::string& where, std::int64_t available,
                      Range& range) {
  SafeTensor tensor;
  for (const auto& [key, value] : entry.object(where)) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      throw InputError(fmt::format("{}: has \"{}\", which the format does not know", where, key));
    }
  }
  tensor.type = member(entry, "dtype", where).text(where + ": dtype");
  const std::int64_t size = element_bytes(tensor.type);
  if (size == 0) {
    throw InputError(
        fmt::format("{}: has the dtype \"{}\", wanted is one of the format", where, tensor.type));
  }
  std::int64_t bytes = size;
  for (const Json& item : member(entry, "shape", where).list(where + ": shape")) {
    const std::int64_t extent = item.integer(where + ": shape");
    if (extent < 0 || (extent > 0 && bytes > std::numeric_limits<std::int64_t>::max() / extent)) {
      throw InputError(
          fmt::format("{}: has the extent {}, which is no possible one", where, extent));
    }
    tensor.extents.push_back(extent);
    bytes *= extent;
  }
  const auto& offsets = member(entry, "data_offsets", where).list(where + ": data_offsets");
  if (offsets.size() != 2) {
    throw InputError(fmt::format("{}: has {} data_offsets, wanted are 2", where, offsets.size()));
  }
  range = {offsets[0].integer(where + ": data_offsets"),
           offsets[1].integer(where + ": data_offsets")};
  if (range.begin < 0 || range.end < range.begin || range.end > available) {
    throw InputError(
        fmt::format("{}: lies at bytes {} to {} of {}", where, range.begin, range.end, available));
  }
  if (range.end - range.begin != bytes) {
    throw InputError(fmt::format("{}: has {} bytes, {} of {} wants {}", where,
                                 range.end - range.begin, tensor.type,
                                 fmt::join(tensor.extents, " x "), bytes));
  }
  return tensor;
}

/// The tensors in the order of the file: each begins where the one before it ends.
void expect_full_cover(const std::string& path, std::vector<std::pair<Range, std::string>> places,
                       std::int64_t available) {
  std::sort(places.begin(), places.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.begin, a.first.end) < std::pair(b.first.begin, b.first.end);
  });
  std::int64_t end = 0;
  for (const auto& [range, name] : places) {
    if (range.begin != end) {
      throw InputError(
          fmt::format("{}: {}: {}: it begins at byte {}, the one before ends at {}", path, name,
                      range.begin < end ? "overlaps another" : "leaves a gap", range.begin, end));
    }
    end = range.end;
  }
  if (end != available) {
    throw InputError(fmt::format("{}: has {} bytes behind the last tensor, wanted are none", path,
                                 available - end));
  }
}

}  // namespace

std::int64_t SafeTensor::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : extents) {
    count *= extent;
  }
  return count;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  if (file_.size() < length_bytes) {
    throw InputError(
        fmt::format("{}: has {} bytes, which is too short for safetensors", path, file_.size()));
  }
  const auto header = file_.load<std::uint64_t>(0);
  if (header > static_cast<std::uint64_t>(std::min(longest_header, file_.size() - length_bytes))) {
    throw InputError(
        fmt::format("{}: says its header has {} bytes; the file has {}, a header at "
                    "most {}",
                    path, header, file_.size(), longest_header));
  }
  const auto header_bytes = static_cast<std::int64_t>(header);
  const std::string_view text(file_.data() + length_bytes, header_bytes);
  if (!text.starts_with('{')) {
    throw InputError(path + ": its header does not begin with {");
  }
  const Json json = Json::parse(text, path + ": header", {longest_header, 4});
  const std::int64_t start = length_bytes + header_bytes, available = file_.size() - start;
  std::vector<std::pair<Range, std::string>> places;
  for (const auto& [name, entry] : json.object(path)) {
    const std::string where = path + ": " + name;
    if (name == "__metadata__") {
      for (const auto& [key, value] : entry.object(where)) {
        metadata_[key] = value.text(where + ": " + key);
      }
      continue;
    }
    Range range;
    SafeTensor tensor = read_entry(entry, where, available, range);
    tensor.begin = start + range.begin;
    tensor.bytes = std::as_bytes(
        std::span(file_.data() + start + range.begin, std::size_t(range.end - range.begin)));
    tensors_.emplace(name, std::move(tensor));
    places.emplace_back(range, name);
  }
  expect_full_cover(path, std::move(places), available);
}

SafetensorsFolder::SafetensorsFolder(const std::string& folder) : folder_(folder) {
  const std::string single = folder + "/model.safetensors";
  const std::string index = single + ".index.json";
  if (std::filesystem::exists(single)) {
    add_file(single);
    return;
  }
  if (!std::filesystem::exists(index)) {
    throw InputError(folder + ": has neither model.safetensors nor model.safetensors.index.json");
  }
  const Json json = Json::read(index, {longest_header, 8});
  std::map<std::string, std::set<std::string>> listed;  // by shard
  for (const auto& [name, shard] : member(json, "weight_map", index).object(index)) {
    listed[shard.text(index + ": " + name)].insert(name);
  }
  for (const auto& [shard, names] : listed) {
    if (shard.find('/') != std::string::npos || !shard.ends_with(".safetensors")) {
      throw InputError(
          fmt::format("{}: names the shard \"{}\", wanted is a .safetensors file of "
                      "the same folder",
                      index, shard));
    }
    const std::string path = folder + "/" + shard;
    if (!std::filesystem::exists(path)) {
      throw InputError(fmt::format("{}: the shard {} is missing", index, shard));
    }
    const SafetensorsFile& file = add_file(path);
    for (const auto& [name, tensor] : file.tensors()) {
      if (names.count(name) == 0) {
        throw InputError(
            fmt::format("{}: holds {}, which the index does not list there", path, name));
      }
    }
    for (const std::string& name : names) {
      if (file.tensors().count(name) == 0) {
        throw InputError(
            fmt::format("{}: does not hold {}, which the index lists there", path, name));
      }
    }
  }
}

const SafetensorsFile& SafetensorsFolder::add_file(const std::string& path) {
  files_.push_back(std::make_unique<SafetensorsFile>(path));
  for (const auto& [name, tensor] : files_.back()->tensors()) {
    tensors_.emplace(name, Place{&tensor, files_.back().get()});
  }
  return *files_.back();
}

std::vector<std::string> SafetensorsFolder::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : tensors_) {
    names.push_back(name);
  }
  return names;
}

const SafeTensor* SafetensorsFolder::find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : it->second.tensor;
}

const std::string& SafetensorsFolder::path_of(const std::string& name) const {
  return tensors_.at(name).file->path();
}

NumberFormat format_of(const SafeTensor& tensor, const std::string& name) {
  const auto format = number_format_named(tensor.type);
  if (!format) {
    throw InputError(
        fmt::format("{}: has the dtype {}, wanted is BF16, F16, F32 or F64", name, tensor.type));
  }
  return *format;
}

template <class T>
void convert_elements(const SafeTensor& tensor, const std::string& name, std::int64_t first,
                      std::int64_t count, T* to) {
  require(first >= 0 && count >= 0 && first + count <= tensor.elements(),
          name + ": elements outside of the tensor are asked for");
  const NumberFormat format = format_of(tensor, name);
  convert_numbers(format, tensor.bytes.data() + first * bytes_of(format),
                  number_format_of(data_type_of<T>()), reinterpret_cast<std::byte*>(to), count);
}

#define QNEXT_INSTANTIATE(T)                                                             \
  template void convert_elements<T>(const SafeTensor&, const std::string&, std::int64_t, \
                                    std::int64_t, T*);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
