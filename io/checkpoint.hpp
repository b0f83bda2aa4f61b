// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "core/types.hpp"
#include "io/array.hpp"
#include "io/record.hpp"
#include "parallel/shards.hpp"

#include <cstdint>
#include <functional>
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
    const Shards* shards = nullptr;  // of these elements this rank writes its part; null: all
    std::int64_t first = 0;          // the element of the group that `memory` begins with
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

/// How several ranks write one file: all at once, which wants an HDF5 with MPI; or one after the
/// other. `best`: at once where that can be done.
enum class Access { best, together, in_turns };

/// Writes a checkpoint: global tensors, whatever the layout of this run.
///
///     user block                      checked before HDF5 opens the file, see checkpoint_block.hpp
///     /parameters/NAME                attribute xxh3: hash of the elements
///     /FAMILY/NAME                    "
///     /deck/given, /deck/resolved
///     /records/RECORD/VALUE
///
/// All ranks of `world` call it, with their own rows of the model. The first one makes the file;
/// then each writes the boxes of the rows that it owns, of these the elements in its part of
/// `shards` (groups; empty: all elements); then they read all back together for the hashes. The
/// bytes of the file do not depend on the number of ranks.
///
/// The file comes into being as `path`.part, is flushed to the disk and then renamed: under `path`
/// there is either what was there before or all of this. An error on one rank (a full disk) is an
/// error on all of them and removes the part.
void write_checkpoint(const std::string& path, const CheckpointContent& content,
                      const ParameterTable& table, const std::vector<TensorFamily>& families,
                      const std::vector<Shards>& shards = {}, const Communicator& world = {},
                      Access access = Access::best);

/// Everything but the tensors, after the user block was checked.
CheckpointContent read_checkpoint_content(const std::string& path);

/// Fills the parameters and the families: each rank of `world` reads the boxes of its memory, and
/// together they read all of the file once for the hashes. A wrong one is a BadNumberError on all
/// ranks. A tensor that is missing, unknown, or of another type or shape is an InputError that
/// names it, what was found and what is wanted; one whose name begins with `unused`, if that is not
/// empty, may be unknown and is not read. `wanted`: whether a parameter is read, which it otherwise
/// need not be there for; absent: all are.
void read_checkpoint_tensors(const std::string& path, const ParameterTable& table,
                             const std::vector<TensorFamily>& families,
                             const Communicator& world = {}, const std::string& unused = {},
                             const std::function<bool(const Parameter&)>& wanted = {});

/// A tensor of a checkpoint without its elements.
struct CheckpointTensor {
  std::string name;  // "parameters/lm_head.weight"
  ElementType type;
  std::vector<std::int64_t> extents;
  std::string hash;  // as it stands in the file; verify_checkpoint compares
};

/// All of them, by name.
std::vector<CheckpointTensor> list_checkpoint_tensors(const std::string& path);

/// The ranks read every byte of the file, each its share, and compare all hashes.
void verify_checkpoint(const std::string& path, const Communicator& world = {});

}  // namespace qnext
