// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/checkpoint.hpp"
#include "io/hdf5_file.hpp"

#include <cstdint>
#include <string>
#include <vector>

// What writing and reading a checkpoint share. Included by their .cpp files alone.
namespace qnext {

inline constexpr const char* hash_attribute = "xxh3";

/// Large enough for full speed of the disk, small enough to be hashed out of the cache.
inline constexpr std::int64_t piece_bytes = std::int64_t{4} << 20;

/// Elements of a tensor as this rank holds it, from its first.
struct ElementRange {
  std::int64_t begin = 0, end = 0;
};

/// A tensor of a family: its place in the file, and what this rank has of it.
struct FileTensor {
  std::string dataset;
  DataType type;
  const Shard* shard;
  ElementRange held;    // in the memory of this rank
  ElementRange writes;  // of these, what this rank and no other writes
  std::byte* memory;    // of the device: element held.begin

  std::byte* at(std::int64_t element) const {
    return memory + (element - held.begin) * size_of(type);
  }
};

/// Those of the parameters, then those of the families. `shards` (groups): who writes which part of
/// the parameters; empty: this rank writes all.
std::vector<FileTensor> tensors_of(const ParameterTable& table,
                                   const std::vector<TensorFamily>& families,
                                   const std::vector<Shards>& shards);

/// A tensor of the file.
struct Dataset {
  std::string path;
  DatasetShape shape;

  std::int64_t elements() const;
  std::int64_t bytes() const;
};

/// The tensors of all ranks, each once, by name: a list that the layout of the job does not change.
std::vector<Dataset> gather_datasets(const std::vector<FileTensor>& tensors,
                                     const Communicator& world);

/// Copies between device and host where they do not share memory.
class Stage {
 public:
  static constexpr bool shared_memory =
      Kokkos::SpaceAccessibility<Kokkos::HostSpace, Exec::memory_space>::accessible;

  /// Where the host finds or leaves the bytes.
  std::byte* host(std::byte* device, std::int64_t bytes);
  std::byte* to_host(std::byte* device, std::int64_t bytes);
  void to_device(std::byte* device, std::int64_t bytes);

 private:
  HostTensor<std::byte, 1> buffer_;
};

/// Which of the datasets each of `ranks` ranks reads for its hash, so that all read about as much.
std::vector<std::vector<std::size_t>> deal(const std::vector<Dataset>& datasets, int ranks);

/// All of a checkpoint but the numbers of the tensors, whose room is taken.
void create_part(const std::string& part, const CheckpointContent& content,
                 const std::vector<Dataset>& datasets);

/// Writes the hashes of the datasets beside them and seals the block in front.
void finish_part(const std::string& part, std::int64_t step, const std::vector<Dataset>& datasets,
                 const std::vector<std::string>& hashes);

/// Gives the room back at once, even while a library still holds the file open.
void remove_part(const std::string& part);

/// The one place where a checkpoint is opened: HDF5 only sees files whose metadata are whole.
Hdf5File open_checkpoint(const std::string& path);

/// Refuses missing and unknown tensors of one family, all of them in one message; not unknown ones
/// whose names begin with `unused`, if that is not empty.
void compare_names(const Hdf5File& file, const std::string& family,
                   const std::vector<Dataset>& datasets, const std::string& unused = {});

/// Refuses a tensor of another type or of other extents.
void compare_shape(const Hdf5File& file, const Dataset& wanted);

/// Of the elements of a dataset in their order.
std::string hash_of(const Hdf5File& file, const Dataset& dataset);

/// Refuses a dataset whose elements have another hash than the one that stands beside it.
void expect_hash(const Hdf5File& file, const Dataset& dataset, const std::string& found);

}  // namespace qnext
