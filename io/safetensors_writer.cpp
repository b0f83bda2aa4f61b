// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors_writer.hpp"

#include "core/require.hpp"
#include "io/array.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace qnext {
namespace {

constexpr std::int64_t alignment = 8;  // of the first tensor, by blanks behind the header

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump();
}

/// The entries of each file, in their order.
std::vector<std::vector<const SafetensorsWriter::Entry*>> shards_of(
    const std::vector<SafetensorsWriter::Entry>& entries, std::int64_t most) {
  std::vector<std::vector<const SafetensorsWriter::Entry*>> shards(1);
  std::int64_t filled = 0;
  for (const auto& entry : entries) {
    if (!shards.back().empty() && filled + entry.bytes() > most) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(&entry);
    filled += entry.bytes();
  }
  return shards;
}

}  // namespace

std::int64_t SafetensorsWriter::Entry::bytes() const {
  return elements_of(extents) * bytes_of(format);
}

SafetensorsWriter::SafetensorsWriter(std::string folder, const std::vector<Entry>& entries,
                                     std::int64_t shard_bytes, std::string name)
    : folder_(std::move(folder)), name_(std::move(name)) {
  for (const Entry& entry : entries) {
    total_ += entry.bytes();
  }
  const std::int64_t found = room_in(folder_);
  if (found < total_) {
    throw EnvironmentError(
        fmt::format("{}: the tensors have {} bytes, the disk room for {}", folder_, total_, found));
  }
  const auto shards = shards_of(entries, shard_bytes);
  for (std::size_t i = 0; i < shards.size(); ++i) {
    write_header(shards.size() == 1
                     ? name_ + ".safetensors"
                     : fmt::format("{}-{:05}-of-{:05}.safetensors", name_, i + 1, shards.size()),
                 shards[i]);
  }
  if (shards.size() > 1) {
    write_index(entries);
  }
}

void SafetensorsWriter::write_header(const std::string& file, std::vector<const Entry*> entries) {
  std::stable_sort(entries.begin(), entries.end(), [](const Entry* a, const Entry* b) {
    return bytes_of(a->format) > bytes_of(b->format);
  });
  std::string text = R"({"__metadata__":{"format":"pt"})";  // what transformers asks for
  std::int64_t begin = 0;
  for (const Entry* const entry : entries) {
    const std::int64_t end = begin + entry->bytes();
    text += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                        quoted(entry->name), name_of(entry->format), fmt::join(entry->extents, ","),
                        begin, end);
    begin = end;
  }
  text += '}';
  text.resize((text.size() + alignment - 1) / alignment * alignment, ' ');
  const std::uint64_t length = text.size();
  text.insert(0, reinterpret_cast<const char*>(&length), sizeof(length));
  write_file(folder_ + "/" + file, text);
  std::int64_t place = static_cast<std::int64_t>(text.size());
  for (const Entry* const entry : entries) {
    places_[entry->name] = {files_.size(), place, entry->bytes()};
    place += entry->bytes();
  }
  files_.push_back(file);
}

void SafetensorsWriter::write_index(const std::vector<Entry>& entries) const {
  std::string map;
  for (const Entry& entry : entries) {
    map += fmt::format("{}\n    {}: {}", map.empty() ? "" : ",", quoted(entry.name),
                       quoted(files_[places_.at(entry.name).file]));
  }
  write_file(
      folder_ + "/" + name_ + ".safetensors.index.json",
      fmt::format("{{\n  \"metadata\": {{\"total_size\": {}}},\n  \"weight_map\": {{{}\n  }}\n}}\n",
                  total_, map));
}

void SafetensorsWriter::write(const std::string& name, std::int64_t begin,
                              std::span<const std::byte> bytes) {
  const Place& place = places_.at(name);
  const auto count = static_cast<std::int64_t>(bytes.size());
  require(begin >= 0 && begin + count <= place.bytes, name + ": bytes outside of it are written");
  if (!open_ || open_index_ != place.file) {
    open_.reset();
    open_.emplace(PosixFile::open_for_writing(folder_ + "/" + files_[place.file]));
    open_index_ = place.file;
  }
  open_->write(place.begin + begin, bytes.data(), count);
  written_ += count;
}

void SafetensorsWriter::finish() {
  open_.reset();
  require(written_ == total_, fmt::format("{}: {} bytes of the tensors are written, wanted are {}",
                                          folder_, written_, total_));
  for (const std::string& file : files_) {
    PosixFile::open_for_writing(folder_ + "/" + file).flush();
  }
  flush_folder(folder_);
}

}  // namespace qnext
