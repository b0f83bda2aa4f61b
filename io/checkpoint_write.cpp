// SPDX-License-Identifier: Apache-2.0
#include "core/fence.hpp"
#include "core/require.hpp"
#include "io/checkpoint_block.hpp"
#include "io/checkpoint_tensors.hpp"
#include "io/hyperslabs.hpp"
#include "io/posix_file.hpp"
#include "parallel/all_or_none.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>

namespace qnext {
namespace {

void write_value(Hdf5File& file, const std::string& path, const RecordValue& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    file.write_dataset<std::int64_t>(path, {*integer}, {});
  } else if (const auto* real = std::get_if<double>(&value)) {
    file.write_dataset<double>(path, {*real}, {});
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    file.write_text(path, *text);
  } else if (const auto* integers = std::get_if<std::vector<std::int64_t>>(&value)) {
    file.write_dataset(path, *integers, {static_cast<std::int64_t>(integers->size())});
  } else {
    const auto& reals = std::get<std::vector<double>>(value);
    file.write_dataset(path, reals, {static_cast<std::int64_t>(reals.size())});
  }
}

void write_content(Hdf5File& file, const CheckpointContent& content) {
  file.write_attribute<std::string>("/", "program", "qnext");
  file.write_attribute<std::int64_t>("/", "format", CheckpointBlock::current_format);
  file.write_attribute<std::int64_t>("/", "step", content.step);
  file.write_text("/deck/given", content.given_deck);
  file.write_text("/deck/resolved", content.resolved_deck);
  file.create_group("/records");
  for (const auto& [name, record] : content.records) {
    file.create_group("/records/" + name);
    for (const auto& [value_name, value] : record.values()) {
      write_value(file, "/records/" + name + "/" + value_name, value);
    }
  }
}

/// A disk that is too full says so before anything is written.
void expect_room(const std::string& part, const std::vector<Dataset>& datasets) {
  std::int64_t wanted = 0;
  for (const Dataset& dataset : datasets) {
    wanted += dataset.bytes();
  }
  const std::int64_t found = room_in(folder_of(part));
  if (found < wanted) {
    throw EnvironmentError(part + ": the disk has room for " + std::to_string(found) +
                           " bytes, wanted are " + std::to_string(wanted));
  }
}

/// Each element has to have one rank that writes it, and no more.
void expect_owners(const std::vector<Dataset>& datasets, const std::vector<FileTensor>& tensors,
                   const Communicator& world) {
  std::vector<std::int64_t> written(datasets.size());
  for (const FileTensor& tensor : tensors) {
    const auto dataset = std::lower_bound(
        datasets.begin(), datasets.end(), tensor.dataset,
        [](const Dataset& dataset, const std::string& path) { return dataset.path < path; });
    written[dataset - datasets.begin()] += tensor.writes.end - tensor.writes.begin;
  }
  world.sum(written);
  for (std::size_t i = 0; i < datasets.size(); ++i) {
    require(written[i] == datasets[i].elements(),
            datasets[i].path + ": the ranks write " + std::to_string(written[i]) + " of " +
                std::to_string(datasets[i].elements()) + " elements");
  }
}

void write_own(Hdf5File& file, const std::vector<FileTensor>& tensors) {
  Stage stage;
  for (const FileTensor& tensor : tensors) {
    const std::int64_t size = size_of(tensor.type);
    for (const Hyperslab& slab :
         hyperslabs(*tensor.shard, tensor.writes.begin, tensor.writes.end, piece_bytes / size)) {
      const std::byte* const from = stage.to_host(tensor.at(slab.begin), slab.elements * size);
      file.write_box(tensor.dataset, tensor.type, slab.offset, slab.extent, from);
    }
  }
}

/// While no other rank writes.
void write_own_alone(const std::string& part, const std::vector<FileTensor>& tensors) {
  auto file = Hdf5File::open_for_writing(part);
  write_own(file, tensors);
  file.close();
}

// Boxes are written without asking the other ranks, so that an error is a rank's own until all of
// them talk about it; collective calls of the library would keep the others waiting inside.
void write_together(const std::string& part, const std::vector<FileTensor>& tensors,
                    const Communicator& world) {
  std::optional<Hdf5File> file;
  all_or_none(world, [&] { file.emplace(Hdf5File::open_together(part, world)); });
  all_or_none(world, [&] {
    try {
      write_own(*file, tensors);
    } catch (const EnvironmentError&) {
      write_own_alone(part, tensors);  // fails as well, and says why: MPI does not
      throw;
    }
  });
  all_or_none(world, [&] { file->close(); });
}

void write_in_turns(const std::string& part, const std::vector<FileTensor>& tensors,
                    const Communicator& world) {
  for (int turn = 0; turn < world.ranks(); ++turn) {
    all_or_none(world, [&] {
      if (turn == world.rank()) {
        write_own_alone(part, tensors);
      }
    });
  }
}

/// Of all datasets, as the disk gives them back.
std::vector<std::string> read_hashes(const std::string& part, const std::vector<Dataset>& datasets,
                                     const Communicator& world) {
  const auto shares = deal(datasets, world.ranks());
  std::vector<char> digits;
  all_or_none(world, [&] {
    const Hdf5File file(part);
    for (const std::size_t i : shares[world.rank()]) {
      const std::string hash = hash_of(file, datasets[i]);
      digits.insert(digits.end(), hash.begin(), hash.end());
    }
  });
  const auto all = world.all_gather(digits);
  std::vector<std::string> hashes(datasets.size());
  auto next = all.begin();
  for (const auto& share : shares) {
    for (const std::size_t i : share) {
      hashes[i].assign(next, next + 32);
      next += 32;
    }
  }
  return hashes;
}

}  // namespace

void create_part(const std::string& part, const CheckpointContent& content,
                 const std::vector<Dataset>& datasets) {
  expect_room(part, datasets);
  auto file = Hdf5File::create(
      part, CheckpointBlock::bytes_for(static_cast<std::int64_t>(datasets.size())));
  write_content(file, content);
  for (const Dataset& dataset : datasets) {
    file.create_dataset(dataset.path, dataset.shape.type, dataset.shape.extents);
    file.write_attribute(dataset.path, hash_attribute, std::string(32, '0'));
  }
  file.close();
}

void finish_part(const std::string& part, std::int64_t step, const std::vector<Dataset>& datasets,
                 const std::vector<std::string>& hashes) {
  CheckpointBlock block{step, 0, {}};
  auto file = Hdf5File::open_for_writing(part);
  for (std::size_t i = 0; i < datasets.size(); ++i) {
    file.write_attribute(datasets[i].path, hash_attribute, hashes[i]);
    block.tensors.push_back({file.place_of(datasets[i].path), datasets[i].bytes()});
  }
  file.close();
  seal_checkpoint(part, block);
}

void remove_part(const std::string& part) {
  std::error_code ignored;
  std::filesystem::resize_file(part, 0, ignored);
  std::filesystem::remove(part, ignored);
}

void write_checkpoint(const std::string& path, const CheckpointContent& content,
                      const ParameterTable& table, const std::vector<TensorFamily>& families,
                      const std::vector<Shards>& shards, const Communicator& world, Access access) {
  fence(Exec{}, "checkpoint: the tensors are written to a file");
  const auto tensors = tensors_of(table, families, shards);
  const auto datasets = gather_datasets(tensors, world);
  expect_owners(datasets, tensors, world);
  const std::string part = path + ".part";
  const auto by_the_first = [&](const auto& work) {
    all_or_none(world, [&] {
      if (world.first()) {
        work();
      }
    });
  };
  try {
    by_the_first([&] { create_part(part, content, datasets); });
    const bool together =
        access == Access::together ||
        (access == Access::best && world.ranks() > 1 && Hdf5File::opens_together());
    together ? write_together(part, tensors, world) : write_in_turns(part, tensors, world);
    // What a machine wrote is on its way to the file system until that machine flushes it.
    all_or_none(world, [&] { PosixFile::open_for_writing(part).flush(); });
    const auto hashes = read_hashes(part, datasets, world);
    by_the_first([&] {
      finish_part(part, content.step, datasets, hashes);
      replace_file(part, path);
    });
  } catch (...) {
    if (world.first()) {
      remove_part(part);
    }
    throw;
  }
}

}  // namespace qnext
