// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace qnext {

/// A file that is read like memory: pages come in when they are touched and go when memory is
/// short. Throws InputError when the file cannot be opened. The file must not shrink meanwhile.
class MappedFile {
 public:
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  const char* data() const { return data_; }
  std::int64_t size() const { return size_; }

  /// The little-endian number at a byte that need not be aligned.
  template <class T>
  T load(std::int64_t offset) const {
    static_assert(std::endian::native == std::endian::little);
    T value;
    std::memcpy(&value, data_ + offset, sizeof(T));
    return value;
  }

 private:
  std::string path_;
  const char* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace qnext
