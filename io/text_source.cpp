// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "io/mapped_file.hpp"
#include "io/token_source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

namespace qnext {
namespace {

// The separator lines are found once, at the start; two numbers a document stay in memory.
class TextSource : public TokenSource {
 public:
  TextSource(const std::string& path, const std::string& separator) : file_(path) {
    if (file_.size() == 0) {
      throw InputError(path + ": is empty, expected text");
    }
    std::int64_t begin = 0;  // of the document in the file
    if (!separator.empty()) {
      const std::string_view text(file_.data(), static_cast<std::size_t>(file_.size()));
      for (std::size_t at = text.find(separator); at != text.npos;) {
        const std::size_t end = end_of_line(text, at + separator.size());
        if ((at == 0 || text[at - 1] == '\n') && end != text.npos) {
          add(begin, static_cast<std::int64_t>(at));
          begin = static_cast<std::int64_t>(end);
          at = text.find(separator, end);
        } else {
          at = text.find(separator, at + 1);
        }
      }
    }
    add(begin, file_.size());
    if (tokens() == 0) {
      throw InputError(fmt::format("{}: holds nothing but separator lines ({})", path, separator));
    }
  }

  const std::string& name() const override { return file_.path(); }
  std::int64_t tokens() const override { return begin_.back(); }
  std::int64_t documents() const override { return static_cast<std::int64_t>(offset_.size()); }
  std::int64_t document_begin(std::int64_t d) const override { return begin_[d]; }

  void read(std::int64_t begin, std::int64_t count, std::int32_t* ids) const override {
    for (std::int64_t d = document_of(begin); count > 0; ++d) {
      const std::int64_t here = std::min(count, begin_[d + 1] - begin);
      const char* bytes = file_.data() + offset_[d] + (begin - begin_[d]);
      std::transform(bytes, bytes + here, ids,
                     [](char byte) { return static_cast<unsigned char>(byte); });
      ids += here;
      begin += here;
      count -= here;
    }
  }

 private:
  // Behind the line break at `at`, or npos if there is something else.
  static std::size_t end_of_line(std::string_view text, std::size_t at) {
    if (at < text.size() && text[at] == '\r') {
      ++at;
    }
    if (at == text.size()) {
      return at;
    }
    return text[at] == '\n' ? at + 1 : text.npos;
  }

  void add(std::int64_t begin, std::int64_t end) {
    if (begin < end) {
      offset_.push_back(begin);
      begin_.push_back(begin_.back() + end - begin);
    }
  }

  MappedFile file_;
  std::vector<std::int64_t> begin_{0};  // (documents + 1)  in tokens
  std::vector<std::int64_t> offset_;    // (documents)      in the file
};

}  // namespace

std::unique_ptr<TokenSource> open_text(const std::string& path, const std::string& separator) {
  return std::make_unique<TextSource>(path, separator);
}

}  // namespace qnext
