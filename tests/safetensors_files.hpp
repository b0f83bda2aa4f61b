// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/temporary_folder.hpp"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace qnext::test {

/// A safetensors file of any header, right or wrong.
inline std::string safetensors(const std::string& header, const std::string& data) {
  std::string length(8, '\0');
  const std::uint64_t bytes = header.size();
  std::memcpy(length.data(), &bytes, 8);
  return length + header + data;
}

template <class T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

/// Puts tensors one behind the other.
class SafetensorsText {
 public:
  template <class T>
  void add(const std::string& name, const std::string& type, const std::string& shape,
           const std::vector<T>& values) {
    const std::string bytes = raw(values);
    header_ += (header_.empty() ? "" : ", ") + ("\"" + name + "\": ") + entry(type, shape, bytes);
    data_ += bytes;
  }
  std::string bytes() const { return safetensors("{" + header_ + "}", data_); }

 private:
  std::string entry(const std::string& type, const std::string& shape,
                    const std::string& bytes) const {
    return "{\"dtype\": \"" + type + "\", \"shape\": " + shape + ", \"data_offsets\": [" +
           std::to_string(data_.size()) + ", " + std::to_string(data_.size() + bytes.size()) + "]}";
  }

  std::string header_, data_;
};

}  // namespace qnext::test
