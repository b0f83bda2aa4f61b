// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace qnext {

/// The Castagnoli CRC of a string, as TFRecord masks and stores it.
std::uint32_t masked_crc32c(std::string_view bytes);

/// Scalars as an event file that TensorBoard reads: TFRecords, each with an `Event` message.
///
///     record:  uint64 length | uint32 masked CRC of it | bytes | uint32 masked CRC of them
class TensorboardWriter {
 public:
  /// Begins a file of its own in the folder. Its first record tells TensorBoard to forget points of
  /// `first_step` and later that an earlier file holds.
  TensorboardWriter(const std::string& folder, std::int64_t first_step);

  void write(std::int64_t step, std::string_view tag, double value);
  void flush();

  const std::string& path() const { return path_; }

 private:
  void write_event(std::int64_t step, const std::string& content);

  std::string path_;
  std::ofstream file_;
};

}  // namespace qnext
