// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace qnext {

/// The bytes of a file from its beginning to its end; what gzip or zstd packed is unpacked, by the
/// first bytes of the file and not by its name. Damage and a file that ends too early are an
/// InputError.
class ByteInput {
 public:
  static std::unique_ptr<ByteInput> open(const std::string& path);

  virtual ~ByteInput() = default;

  /// As many as `size`, fewer only at the end.
  virtual std::size_t read(char* to, std::size_t size) = 0;

  /// Bytes of the file itself that were used so far.
  virtual std::int64_t used() const = 0;
};

}  // namespace qnext
