// SPDX-License-Identifier: Apache-2.0
#include "core/fence.hpp"
#include "core/require.hpp"
#include "io/checkpoint_block.hpp"
#include "io/checkpoint_tensors.hpp"
#include "io/hyperslabs.hpp"
#include "parallel/all_or_none.hpp"

#include <algorithm>
#include <optional>
#include <set>

namespace qnext {
namespace {

RecordValue read_value(const Hdf5File& file, const std::string& path) {
  const DatasetShape shape = file.describe(path);
  if (shape.type == ElementType::text) {
    return file.read_text(path);
  }
  if (shape.type == ElementType::int64) {
    auto values = file.read_dataset<std::int64_t>(path).values;
    return shape.extents.empty() ? RecordValue(values.front()) : RecordValue(std::move(values));
  }
  auto values = file.read_dataset<double>(path).values;
  return shape.extents.empty() ? RecordValue(values.front()) : RecordValue(std::move(values));
}

/// The ranks read every dataset once for its hash; a wrong one is an error on all of them.
void verify(const Hdf5File& file, const std::vector<Dataset>& datasets, const Communicator& world) {
  const auto shares = deal(datasets, world.ranks());
  all_or_none(world, [&] {
    for (const std::size_t i : shares[world.rank()]) {
      expect_hash(file, datasets[i], hash_of(file, datasets[i]));
    }
  });
}

std::vector<Dataset> datasets_in(const Hdf5File& file) {
  std::vector<Dataset> datasets;
  for (const std::string& name : file.list_datasets("/")) {
    if (file.has_attribute("/" + name, hash_attribute)) {
      datasets.push_back({"/" + name, file.describe("/" + name)});
    }
  }
  return datasets;
}

std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t shown = 8;
  std::string text = std::to_string(names.size()) + " (";
  for (std::size_t i = 0; i < std::min(shown, names.size()); ++i) {
    text += (i == 0 ? "" : ", ") + names[i];
  }
  return text + (names.size() > shown ? ", ...)" : ")");
}

void read_own(const Hdf5File& file, const std::vector<FileTensor>& tensors) {
  Stage stage;
  for (const FileTensor& tensor : tensors) {
    const std::int64_t size = size_of(tensor.type);
    for (const Hyperslab& slab :
         hyperslabs(*tensor.shard, tensor.held.begin, tensor.held.end, piece_bytes / size)) {
      std::byte* const to = tensor.at(slab.begin);
      const std::int64_t bytes = slab.elements * size;
      file.read_box(tensor.dataset, tensor.type, slab.offset, slab.extent, stage.host(to, bytes));
      stage.to_device(to, bytes);
    }
  }
}

}  // namespace

void expect_hash(const Hdf5File& file, const Dataset& dataset, const std::string& found) {
  const auto wanted = file.read_attribute<std::string>(dataset.path, hash_attribute);
  if (found != wanted) {
    throw BadNumberError(file.path() + ": " + dataset.path + ": is damaged: its hash is " + found +
                         ", wanted is " + wanted);
  }
}

Hdf5File open_checkpoint(const std::string& path) {
  check_checkpoint_block(path);
  return Hdf5File(path);
}

void compare_names(const Hdf5File& file, const std::string& family,
                   const std::vector<Dataset>& datasets, const std::string& unused) {
  const std::string group = "/" + family;
  std::set<std::string> unknown;
  if (file.is_group(group)) {
    const auto names = file.list(group);
    unknown.insert(names.begin(), names.end());
  }
  std::vector<std::string> missing;
  for (const Dataset& dataset : datasets) {
    if (dataset.path.starts_with(group + "/")) {
      const std::string name = dataset.path.substr(group.size() + 1);
      if (unknown.erase(name) == 0) {
        missing.push_back(name);
      }
    }
  }
  if (!unused.empty()) {
    std::erase_if(unknown, [&](const std::string& name) { return name.starts_with(unused); });
  }
  if (missing.empty() && unknown.empty()) {
    return;
  }
  throw InputError(
      file.path() + ": " + group + ": does not hold the tensors of this model:" +
      (missing.empty() ? "" : " missing " + some_of(missing)) +
      (unknown.empty() ? "" : " unknown " + some_of({unknown.begin(), unknown.end()})));
}

void compare_shape(const Hdf5File& file, const Dataset& wanted) {
  const DatasetShape found = file.describe(wanted.path);
  if (found.type == wanted.shape.type && found.extents == wanted.shape.extents) {
    return;
  }
  throw InputError(file.path() + ": " + wanted.path + ": is " + std::string(name_of(found.type)) +
                   " " + to_string(found.extents) + ", wanted is " +
                   std::string(name_of(wanted.shape.type)) + " " + to_string(wanted.shape.extents));
}

CheckpointContent read_checkpoint_content(const std::string& path) {
  const Hdf5File file = open_checkpoint(path);
  CheckpointContent content;
  content.step = file.read_attribute<std::int64_t>("/", "step");
  content.given_deck = file.read_text("/deck/given");
  content.resolved_deck = file.read_text("/deck/resolved");
  for (const std::string& name : file.list("/records")) {
    Record& record = content.record(name);
    for (const std::string& value : file.list("/records/" + name)) {
      record.set(value, read_value(file, "/records/" + name + "/" + value));
    }
  }
  return content;
}

void read_checkpoint_tensors(const std::string& path, const ParameterTable& table,
                             const std::vector<TensorFamily>& families, const Communicator& world,
                             const std::string& unused,
                             const std::function<bool(const Parameter&)>& wanted) {
  const Hdf5File file = open_checkpoint(path);
  fence(Exec{}, "checkpoint: the tensors are read from a file");
  auto tensors = tensors_of(table, families, {});
  if (wanted) {
    std::set<const Shard*> left;
    for (const Parameter& row : table.rows()) {
      if (!wanted(row)) {
        left.insert(&row.shard);
      }
    }
    std::erase_if(tensors, [&](const FileTensor& tensor) { return left.count(tensor.shard) > 0; });
  }
  const auto datasets = gather_datasets(tensors, world);
  compare_names(file, "parameters", datasets, unused);
  for (const TensorFamily& family : families) {
    compare_names(file, family.name, datasets);
  }
  for (const Dataset& dataset : datasets) {
    compare_shape(file, dataset);
  }
  all_or_none(world, [&] { read_own(file, tensors); });
  verify(file, datasets, world);
}

std::vector<CheckpointTensor> list_checkpoint_tensors(const std::string& path) {
  const Hdf5File file = open_checkpoint(path);
  std::vector<CheckpointTensor> tensors;
  for (const Dataset& dataset : datasets_in(file)) {
    tensors.push_back({dataset.path.substr(1), dataset.shape.type, dataset.shape.extents,
                       file.read_attribute<std::string>(dataset.path, hash_attribute)});
  }
  return tensors;
}

void verify_checkpoint(const std::string& path, const Communicator& world) {
  std::optional<Hdf5File> file;
  all_or_none(world, [&] { file.emplace(open_checkpoint(path)); });
  verify(*file, datasets_in(*file), world);
}

}  // namespace qnext
