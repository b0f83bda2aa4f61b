// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/text/byte_input.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace qnext {

/// The records of a text or JSONL file, packed or not, one after the other: lines of JSONL without
/// their line break, documents of a text. Empty ones are left out.
class RecordInput {
 public:
  /// Texts end at a line that is just `separator`; where it is empty, the file is one document.
  RecordInput(const std::string& path, const std::string& separator);

  /// JSONL by its name: .jsonl or .json, with or without .gz or .zst behind.
  static bool is_jsonl(const std::string& path);

  /// False at the end of the file.
  bool next(std::string& record);

  const std::string& path() const { return path_; }
  bool jsonl() const { return jsonl_; }
  std::int64_t line() const { return line_; }  // that the last record begins with, from 1
  std::int64_t used() const { return input_->used(); }

 private:
  bool next_line(std::string& line);

  std::string path_, separator_;
  bool jsonl_;
  std::unique_ptr<ByteInput> input_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0, end_ = 0;  // what of the buffer is not used yet
  std::int64_t lines_ = 0, line_ = 0;
};

}  // namespace qnext
