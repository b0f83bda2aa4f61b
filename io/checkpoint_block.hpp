// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

/// The block in front of a checkpoint, which is checked before HDF5 opens the file.
///
///     0   16  "qnext checkpoint"
///     16   8  format
///     24   8  bytes of this block: a power of two from 512 on
///     32   8  bytes of the file
///     40   8  step
///     48   8  number of tensors N
///     56  32  hash: the digits of XXH3-128
///     88 16N  begin and bytes of the elements of each tensor, in the order of the file
///
/// Numbers are little-endian. The hash covers the block (with zeros for itself) and every byte of
/// the file that belongs to no tensor; tensors have hashes of their own. So each byte of the file
/// is covered by one hash, and what HDF5 interprets is known to be whole.
struct CheckpointBlock {
  static constexpr std::int64_t current_format = 1;

  struct Range {
    std::int64_t begin;
    std::int64_t bytes;
  };

  std::int64_t step = 0;
  std::int64_t file_bytes = 0;
  std::vector<Range> tensors;

  /// How long the block is with that many tensors.
  static std::int64_t bytes_for(std::int64_t tensors);
};

/// Writes the block in front of a file that is otherwise complete, and waits until the disk has it.
/// `block.file_bytes` is filled.
void seal_checkpoint(const std::string& path, CheckpointBlock block);

/// Reads and checks it. A file that is no checkpoint, or of another format, is an InputError; a
/// truncated or damaged one a BadNumberError.
CheckpointBlock check_checkpoint_block(const std::string& path);

}  // namespace qnext
