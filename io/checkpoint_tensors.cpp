// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint_tensors.hpp"

#include "core/require.hpp"
#include "io/hash.hpp"
#include "io/hyperslabs.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <sstream>

namespace qnext {
namespace {

ElementRange overlap(const ElementRange& a, const ElementRange& b) {
  return {std::max(a.begin, b.begin), std::max(std::max(a.begin, b.begin), std::min(a.end, b.end))};
}

/// The part of a flat buffer as elements of a row that lies in it.
ElementRange of_row(const Parameter& row, std::int64_t begin, std::int64_t end) {
  return overlap({0, row.elements()}, {begin - row.begin, end - row.begin});
}

void append(const ParameterTable& table, const TensorFamily& family,
            std::vector<FileTensor>& tensors) {
  require(family.buffers.size() == table.groups().size(),
          family.name + ": has buffers for " + std::to_string(family.buffers.size()) +
              " groups, wanted are " + std::to_string(table.groups().size()));
  for (const Parameter& row : table.rows()) {
    const auto& [type, memory, shards, first] = family.buffers[row.group];
    if (!row.alias_of.empty() || (memory.extent(0) == 0 && shards == nullptr)) {
      continue;
    }
    const auto elements = static_cast<std::int64_t>(memory.extent(0)) / size_of(type);
    FileTensor tensor{"/" + family.name + "/" + row.name,   type, &row.shard,
                      of_row(row, first, first + elements), {},   nullptr};
    tensor.memory = memory.data() + (row.begin + tensor.held.begin - first) * size_of(type);
    if (row.owner) {
      tensor.writes = shards == nullptr
                          ? tensor.held
                          : overlap(tensor.held, of_row(row, shards->begin(), shards->end()));
    }
    tensors.push_back(tensor);
  }
}

DataType number_type(ElementType type) {
  return type == ElementType::bf16      ? DataType::bf16
         : type == ElementType::float32 ? DataType::float32
                                        : DataType::float64;
}

/// A line for each dataset: type, path, extents. Names have no blanks.
std::string text_of(const std::vector<FileTensor>& tensors) {
  std::string text;
  for (const FileTensor& tensor : tensors) {
    const auto& extent = tensor.shard->global_extent;
    text += fmt::format("{} {} {}\n", tensor.dataset, static_cast<int>(tensor.type),
                        fmt::join(extent.begin(), extent.begin() + tensor.shard->rank, " "));
  }
  return text;
}

Dataset dataset_of(const std::string& line) {
  std::istringstream words(line);
  Dataset dataset;
  int type = 0;
  words >> dataset.path >> type;
  dataset.shape.type = element_type_of(static_cast<DataType>(type));
  for (std::int64_t extent; words >> extent;) {
    dataset.shape.extents.push_back(extent);
  }
  return dataset;
}

/// The lists of those ranks that have another one than all ranks before them: ranks of one stage of
/// a pipeline have the same.
std::string gather_lists(const std::string& mine, const Communicator& world) {
  Hash hash;
  hash.add(mine.data(), mine.size());
  const std::string digits = hash.digits();
  const auto all = world.all_gather(std::vector<char>(digits.begin(), digits.end()));
  bool first = true;
  for (int r = 0; first && r < world.rank(); ++r) {
    first = digits != std::string(all.data() + r * digits.size(), digits.size());
  }
  const auto lists =
      world.all_gather(first ? std::vector<char>(mine.begin(), mine.end()) : std::vector<char>());
  return {lists.begin(), lists.end()};
}

}  // namespace

std::vector<FileTensor> tensors_of(const ParameterTable& table,
                                   const std::vector<TensorFamily>& families,
                                   const std::vector<Shards>& shards) {
  TensorFamily parameters = parameter_family(table);
  for (std::size_t g = 0; g < shards.size(); ++g) {
    parameters.buffers[g].shards = &shards[g];
  }
  std::vector<FileTensor> tensors;
  append(table, parameters, tensors);
  for (const TensorFamily& family : families) {
    append(table, family, tensors);
  }
  return tensors;
}

std::int64_t Dataset::elements() const {
  return std::accumulate(shape.extents.begin(), shape.extents.end(), std::int64_t{1},
                         std::multiplies<>());
}

std::int64_t Dataset::bytes() const {
  return elements() * size_of(number_type(shape.type));
}

std::vector<Dataset> gather_datasets(const std::vector<FileTensor>& tensors,
                                     const Communicator& world) {
  std::istringstream lines(gather_lists(text_of(tensors), world));
  std::set<std::string> unique;
  for (std::string line; std::getline(lines, line);) {
    unique.insert(line);
  }
  std::vector<Dataset> datasets;
  std::transform(unique.begin(), unique.end(), std::back_inserter(datasets), dataset_of);
  return datasets;
}

std::byte* Stage::host(std::byte* device, std::int64_t bytes) {
  if (shared_memory) {
    return device;
  }
  if (static_cast<std::int64_t>(buffer_.extent(0)) < bytes) {
    buffer_ = HostTensor<std::byte, 1>(
        Kokkos::view_alloc("checkpoint stage", Kokkos::WithoutInitializing), bytes);
  }
  return buffer_.data();
}

std::byte* Stage::to_host(std::byte* device, std::int64_t bytes) {
  std::byte* const place = host(device, bytes);
  if (!shared_memory) {
    Kokkos::deep_copy(HostTensor<std::byte, 1>(place, bytes),
                      Tensor<const std::byte, 1>(device, bytes));
  }
  return place;
}

void Stage::to_device(std::byte* device, std::int64_t bytes) {
  if (!shared_memory) {
    Kokkos::deep_copy(Tensor<std::byte, 1>(device, bytes),
                      HostTensor<const std::byte, 1>(buffer_.data(), bytes));
  }
}

std::vector<std::vector<std::size_t>> deal(const std::vector<Dataset>& datasets, int ranks) {
  std::vector<std::size_t> by_size(datasets.size());
  std::iota(by_size.begin(), by_size.end(), 0);
  std::stable_sort(by_size.begin(), by_size.end(), [&](std::size_t a, std::size_t b) {
    return datasets[a].bytes() > datasets[b].bytes();
  });
  // The largest that is left goes to the rank that has least.
  std::set<std::pair<std::int64_t, int>> loads;
  for (int r = 0; r < ranks; ++r) {
    loads.emplace(0, r);
  }
  std::vector<std::vector<std::size_t>> shares(ranks);
  for (const std::size_t i : by_size) {
    const auto [load, rank] = *loads.begin();
    loads.erase(loads.begin());
    loads.emplace(load + datasets[i].bytes(), rank);
    shares[rank].push_back(i);
  }
  return shares;
}

std::string hash_of(const Hdf5File& file, const Dataset& dataset) {
  const DataType type = number_type(dataset.shape.type);
  std::vector<std::byte> buffer;
  Hash hash;
  for (const Hyperslab& slab : hyperslabs(Shard::whole(dataset.shape.extents), 0,
                                          dataset.elements(), piece_bytes / size_of(type))) {
    buffer.resize(slab.elements * size_of(type));
    file.read_box(dataset.path, type, slab.offset, slab.extent, buffer.data());
    hash.add(buffer.data(), buffer.size());
  }
  return hash.digits();
}

}  // namespace qnext
