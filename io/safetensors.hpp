// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"
#include "io/mapped_file.hpp"
#include "io/number_format.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace qnext {

/// A tensor of a safetensors file, in the memory of the mapped file.
struct SafeTensor {
  std::string type;  // "BF16", "F16", "F32", "F64", ...
  std::vector<std::int64_t> extents;
  std::int64_t begin = 0;            // first byte in the file
  std::span<const std::byte> bytes;  // row-major, little-endian, of any alignment

  std::int64_t elements() const;
};

/// One file of the safetensors format: 8 bytes of length, a JSON header, the bytes of all tensors.
///
/// Everything that the header says is checked before any of it is used: its length, types, shapes,
/// that each tensor has as many bytes as its shape says, and that the tensors cover the rest of the
/// file without gap or overlap, as the format wants. A violation is an InputError.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::map<std::string, SafeTensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  MappedFile file_;
  std::map<std::string, SafeTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// The weights of a Hugging Face folder: model.safetensors, or the shards that
/// model.safetensors.index.json names. Index and shards must agree about every tensor.
class SafetensorsFolder {
 public:
  explicit SafetensorsFolder(const std::string& folder);

  const std::string& folder() const { return folder_; }
  std::vector<std::string> names() const;  // in alphabetical order

  /// Null when there is none of that name.
  const SafeTensor* find(const std::string& name) const;

  /// The file that a tensor of the folder lies in.
  const std::string& path_of(const std::string& name) const;

 private:
  struct Place {
    const SafeTensor* tensor;
    const SafetensorsFile* file;
  };

  const SafetensorsFile& add_file(const std::string& path);

  std::string folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Place> tensors_;
};

/// The format of a tensor's numbers; another dtype than BF16, F16, F32 and F64 is an InputError
/// with `name`.
NumberFormat format_of(const SafeTensor& tensor, const std::string& name);

/// `count` elements from `first` on as T (bf16, float or double), rounded to nearest even where T
/// is narrower; `name` is for the error of format_of.
template <class T>
void convert_elements(const SafeTensor& tensor, const std::string& name, std::int64_t first,
                      std::int64_t count, T* to);

}  // namespace qnext
