// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "core/types.hpp"
#include "io/record.hpp"
#include "parallel/shards.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace qnext {

/// One number for each element of a ParameterTable, in buffers that lie as the table's groups do:
/// the parameters themselves, a moment of the optimizer, the master weights.
struct TensorFamily {
  struct Buffer {
    DataType type = DataType::float32;
    Tensor<std::byte, 1> memory;     // empty without `shards`: nothing for this group
    const Shards* shards = nullptr;  // this rank holds its part; null: all of the group
  };
  std::string name;             // "optimizer/first_moment": the group in the file
  std::vector<Buffer> buffers;  // (groups of the table)
};

/// The values of the parameters: the family that every checkpoint has.
TensorFamily parameter_family(const ParameterTable& table);

/// What a checkpoint holds beside tensors.
struct CheckpointContent {
  std::int64_t step = 0;
  std::string given_deck;
  std::string resolved_deck;
  std::map<std::string, Record> records;  // "program", "progress", "data", ...

  /// The record of that name, made when it is missing / refused when it is missing.
  Record& record(const std::string& name);
  const Record& record(const std::string& name) const;
};

/// What made a run what it is: version, commit, backend, compiler, threads, processor.
Record program_record(int threads, const std::string& processor_features);

/// Writes a checkpoint: global tensors, whatever the layout of this run.
///
///     user block                      checked before HDF5 opens the file, see checkpoint_block.hpp
///     /parameters/NAME                attribute xxh3: hash of the elements
///     /FAMILY/NAME                    "
///     /deck/given, /deck/resolved
///     /records/RECORD/VALUE
///
/// The file comes into being as `path`.part, is flushed to the disk and then renamed: under `path`
/// there is either what was there before or all of this. An error (a full disk) removes the part.
///
/// All ranks of `world` call it. The first one writes, and is sent what others hold: the bytes of
/// the file do not depend on the number of ranks. `parts` are the ranks that hold other parts of
/// the tensors; the first of `world` is the first there, the next ones are its neighbours.
void write_checkpoint(const std::string& path, const CheckpointContent& content,
                      const ParameterTable& table, const std::vector<TensorFamily>& families,
                      const Communicator& world = {}, const Communicator& parts = {});

/// Everything but the tensors, after the user block was checked.
CheckpointContent read_checkpoint_content(const std::string& path);

/// Fills the parameters and the families, each tensor from the boxes of its shard, and of a family
/// that ranks share the part of this one. Hashes are verified: a wrong one is a BadNumberError. A
/// tensor that is missing, unknown, or of another type or shape is an InputError that names it,
/// what was found and what is wanted.
void read_checkpoint_tensors(const std::string& path, const ParameterTable& table,
                             const std::vector<TensorFamily>& families);

/// Reads every byte of the file and compares all hashes.
void verify_checkpoint(const std::string& path);

}  // namespace qnext
