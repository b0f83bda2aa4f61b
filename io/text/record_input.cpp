// SPDX-License-Identifier: Apache-2.0
#include "io/text/record_input.hpp"

#include <cstring>
#include <string_view>

namespace qnext {
namespace {

std::string_view without_break(std::string_view line) {
  if (line.ends_with('\n')) {
    line.remove_suffix(1);
  }
  if (line.ends_with('\r')) {
    line.remove_suffix(1);
  }
  return line;
}

}  // namespace

bool RecordInput::is_jsonl(const std::string& path) {
  std::string_view name = path;
  for (const std::string_view packed : {".gz", ".zst"}) {
    if (name.ends_with(packed)) {
      name.remove_suffix(packed.size());
    }
  }
  return name.ends_with(".jsonl") || name.ends_with(".json");
}

RecordInput::RecordInput(const std::string& path, const std::string& separator)
    : path_(path),
      separator_(separator),
      jsonl_(is_jsonl(path)),
      input_(ByteInput::open(path)),
      buffer_(1 << 17) {}

// With its line break.
bool RecordInput::next_line(std::string& line) {
  line.clear();
  for (;;) {
    if (begin_ == end_) {
      begin_ = 0;
      end_ = input_->read(buffer_.data(), buffer_.size());
      if (end_ == 0) {
        break;
      }
    }
    const char* const from = buffer_.data() + begin_;
    const void* const found = std::memchr(from, '\n', end_ - begin_);
    const std::size_t count =
        found != nullptr ? static_cast<std::size_t>(static_cast<const char*>(found) - from) + 1
                         : end_ - begin_;
    line.append(from, count);
    begin_ += count;
    if (found != nullptr) {
      break;
    }
  }
  lines_ += line.empty() ? 0 : 1;
  return !line.empty();
}

bool RecordInput::next(std::string& record) {
  record.clear();
  std::string line;
  while (next_line(line)) {
    if (record.empty()) {
      line_ = lines_;
    }
    const std::string_view content = without_break(line);
    if (jsonl_) {
      if (content.find_first_not_of(" \t") != content.npos) {
        record = content;
        return true;
      }
    } else if (!separator_.empty() && content == separator_) {
      if (!record.empty()) {
        return true;
      }
    } else {
      record += line;
    }
  }
  return !record.empty();
}

}  // namespace qnext
