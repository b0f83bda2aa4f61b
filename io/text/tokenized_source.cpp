// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "io/text/document.hpp"
#include "io/text/record_input.hpp"
#include "io/token_source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace qnext {
namespace {

// All tokens stay in memory, five bytes each.
class TokenizedSource : public TokenSource {
 public:
  TokenizedSource(const std::string& path, const std::string& separator,
                  const std::string& tokenizer_path)
      : path_(path) {
    const Tokenizer tokenizer = Tokenizer::read(tokenizer_path);
    DocumentEncoder encoder(tokenizer, chat_style_of(tokenizer_path),
                            tokenizer.added_token("<|endoftext|>"));
    RecordInput input(path, separator);
    for (std::string record; input.next(record);) {
      const Document document =
          encoder.encode(record, input.jsonl(), fmt::format("{}:{}", path, input.line()));
      ids_.insert(ids_.end(), document.ids.begin(), document.ids.end());
      learnt_.insert(learnt_.end(), document.mask.begin(), document.mask.end());
      begin_.push_back(static_cast<std::int64_t>(ids_.size()));
    }
    if (ids_.empty()) {
      throw InputError(path + ": holds no text to make tokens of");
    }
    given_ = std::find(learnt_.begin(), learnt_.end(), 0) != learnt_.end();
  }

  const std::string& name() const override { return path_; }
  std::int64_t tokens() const override { return begin_.back(); }
  std::int64_t documents() const override { return static_cast<std::int64_t>(begin_.size()) - 1; }
  std::int64_t document_begin(std::int64_t d) const override { return begin_[d]; }

  void read(std::int64_t begin, std::int64_t count, std::int32_t* ids) const override {
    std::copy_n(ids_.begin() + begin, count, ids);
  }

  bool has_given() const override { return given_; }
  void read_learnt(std::int64_t begin, std::int64_t count, std::uint8_t* learnt) const override {
    std::copy_n(learnt_.begin() + begin, count, learnt);
  }

 private:
  std::string path_;
  std::vector<std::int32_t> ids_;
  std::vector<std::uint8_t> learnt_;
  std::vector<std::int64_t> begin_{0};  // (documents + 1)
  bool given_ = false;
};

}  // namespace

std::unique_ptr<TokenSource> open_tokenized(const std::string& path, const std::string& separator,
                                            const std::string& tokenizer) {
  return std::make_unique<TokenizedSource>(path, separator, tokenizer);
}

}  // namespace qnext
