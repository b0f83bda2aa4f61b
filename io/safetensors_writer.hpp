// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/number_format.hpp"
#include "io/posix_file.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace qnext {

/// The weights of a Hugging Face folder as they come into being, in pieces and in any order.
///
/// Up to `shard_bytes` they are one model.safetensors, or a file of another such `name`; more are
/// cut into files of at most that many bytes (a larger tensor has one for itself), with
/// model.safetensors.index.json beside them. Within a file wider numbers come first, so that each
/// tensor is aligned to its numbers.
class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    NumberFormat format;
    std::vector<std::int64_t> extents;

    std::int64_t bytes() const;
  };

  /// Writes headers and index.
  SafetensorsWriter(std::string folder, const std::vector<Entry>& entries, std::int64_t shard_bytes,
                    std::string name = "model");

  /// `begin` counts the bytes of that tensor.
  void write(const std::string& name, std::int64_t begin, std::span<const std::byte> bytes);

  /// Waits until the disk has all of it.
  void finish();

  std::int64_t bytes() const { return total_; }
  int files() const { return static_cast<int>(files_.size()); }

 private:
  struct Place {
    std::size_t file;
    std::int64_t begin;  // in the file
    std::int64_t bytes;
  };

  void write_header(const std::string& file, std::vector<const Entry*> entries);
  void write_index(const std::vector<Entry>& entries) const;

  std::string folder_, name_;
  std::int64_t total_ = 0;    // bytes of all tensors
  std::int64_t written_ = 0;  // of these
  std::vector<std::string> files_;
  std::map<std::string, Place> places_;
  std::size_t open_index_ = 0;
  std::optional<PosixFile> open_;
};

}  // namespace qnext
