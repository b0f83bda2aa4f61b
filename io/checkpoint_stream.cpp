// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint_stream.hpp"

#include "core/require.hpp"
#include "io/checkpoint_tensors.hpp"
#include "io/hash.hpp"
#include "io/posix_file.hpp"

#include <algorithm>

namespace qnext {
namespace {

const std::string group = "/parameters/";

Dataset dataset_of(const Parameter& row) {
  const auto& extent = row.shard.global_extent;
  return {group + row.name,
          {element_type_of(row.type), {extent.begin(), extent.begin() + row.shard.rank}}};
}

/// In the order in which write_checkpoint makes them.
std::vector<Dataset> datasets_of(const ParameterTable& table) {
  std::vector<Dataset> datasets;
  for (const Parameter& row : table.rows()) {
    if (row.alias_of.empty()) {
      datasets.push_back(dataset_of(row));
    }
  }
  std::sort(datasets.begin(), datasets.end(),
            [](const Dataset& a, const Dataset& b) { return a.path < b.path; });
  return datasets;
}

std::int64_t place_in(const Hdf5File& file, const Dataset& dataset) {
  const std::int64_t place = file.place_of(dataset.path);
  if (place < 0) {
    throw InputError(file.path() + ": " + dataset.path + ": its elements have no place");
  }
  return place;
}

std::vector<std::int64_t> places_in(const Hdf5File& file, const std::vector<Dataset>& datasets) {
  std::vector<std::int64_t> places;
  std::transform(datasets.begin(), datasets.end(), std::back_inserter(places),
                 [&](const Dataset& dataset) { return place_in(file, dataset); });
  return places;
}

/// Copies what a source gives to its place, and returns the hash of it.
std::string write_one(const PosixFile& file, std::int64_t place, const Dataset& dataset,
                      const Parameter& row, const Source& source) {
  Hash hash;
  std::int64_t written = 0;
  source(row, [&](std::span<const std::byte> bytes) {
    const auto count = static_cast<std::int64_t>(bytes.size());
    require(written + count <= dataset.bytes(), dataset.path + ": is given too many bytes");
    file.write(place + written, bytes.data(), count);
    hash.add(bytes.data(), bytes.size());
    written += count;
  });
  require(written == dataset.bytes(), dataset.path + ": is given " + std::to_string(written) +
                                          " of its " + std::to_string(dataset.bytes()) + " bytes");
  return hash.digits();
}

}  // namespace

void write_checkpoint_stream(const std::string& path, const CheckpointContent& content,
                             const ParameterTable& table, const Source& source) {
  const std::string part = path + ".part";
  const auto datasets = datasets_of(table);
  try {
    create_part(part, content, datasets);
    const auto places = places_in(Hdf5File(part), datasets);
    std::vector<std::string> hashes;
    {
      const auto file = PosixFile::open_for_writing(part);
      for (std::size_t i = 0; i < datasets.size(); ++i) {
        const Parameter& row = *table.find(datasets[i].path.substr(group.size()));
        hashes.push_back(write_one(file, places[i], datasets[i], row, source));
      }
      file.flush();
    }
    finish_part(part, content.step, datasets, hashes);
    replace_file(part, path);
  } catch (...) {
    remove_part(part);
    throw;
  }
}

void read_checkpoint_stream(const std::string& path, const ParameterTable& table,
                            const Taker& taker,
                            const std::function<bool(const Parameter&)>& wanted) {
  const Hdf5File file = open_checkpoint(path);
  const auto datasets = datasets_of(table);
  compare_names(file, "parameters", datasets);
  for (const Dataset& dataset : datasets) {
    compare_shape(file, dataset);
  }
  const auto bytes = PosixFile::open_for_reading(path);
  std::vector<std::byte> buffer(piece_bytes);
  for (const Parameter& row : table.rows()) {
    if (!row.alias_of.empty() || (wanted && !wanted(row))) {
      continue;
    }
    const Dataset dataset = dataset_of(row);
    const std::int64_t place = place_in(file, dataset), end = dataset.bytes();
    Hash hash;
    for (std::int64_t begin = 0; begin < end; begin += piece_bytes) {
      const std::int64_t count = std::min(piece_bytes, end - begin);
      bytes.read(place + begin, buffer.data(), count);
      hash.add(buffer.data(), static_cast<std::size_t>(count));
      taker(row, begin, {buffer.data(), static_cast<std::size_t>(count)});
    }
    expect_hash(file, dataset, hash.digits());
  }
}

}  // namespace qnext
