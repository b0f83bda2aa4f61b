// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/temporary_folder.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace qnext::test {

/// Writes a file into the folder and gives its path.
inline std::string write_file(const TemporaryFolder& folder, const std::string& name,
                              const std::string& bytes) {
  write_bytes(folder / name, bytes);
  return folder / name;
}

/// A number as little-endian files hold it.
template <class T>
std::string little_endian(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}

/// Writes PREFIX.bin and PREFIX.idx as Megatron-LM does, one sequence a document.
template <class Id>
void write_indexed(const TemporaryFolder& folder, const std::string& prefix, int type,
                   const std::vector<std::vector<Id>>& documents) {
  std::string ids, lengths, pointers, first = little_endian<std::int64_t>(0);
  for (std::size_t d = 0; d < documents.size(); ++d) {
    lengths += little_endian(static_cast<std::int32_t>(documents[d].size()));
    pointers += little_endian(static_cast<std::int64_t>(ids.size()));
    for (const Id id : documents[d]) {
      ids += little_endian(id);
    }
    first += little_endian(static_cast<std::int64_t>(d + 1));
  }
  const std::string magic("MMIDIDX\0\0", 9);
  write_file(folder, prefix + ".bin", ids);
  write_file(folder, prefix + ".idx",
             magic + little_endian<std::uint64_t>(1) + static_cast<char>(type) +
                 little_endian<std::uint64_t>(documents.size()) +
                 little_endian<std::uint64_t>(documents.size() + 1) + lengths + pointers + first);
}

}  // namespace qnext::test
