// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/text/chat.hpp"
#include "io/text/tokenizer.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qnext {

/// The tokens of a document and which of them a model learns to write.
struct Document {
  std::vector<int> ids = {};
  std::vector<std::uint8_t> mask = {};  // (ids)  0: given
};

/// Makes documents of records, for one thread.
///
///   text                         all of it is learnt, and the end token behind
///   {"text": ...}                the same
///   {"messages": [...]}          a chat; learnt is what the assistant says
///   {"prompt": ..., "completion": ...}   each is encoded for itself, as when a model answers;
///                                learnt are the completion and the end token
class DocumentEncoder {
 public:
  DocumentEncoder(const Tokenizer& tokenizer, ChatStyle style, std::optional<int> end)
      : tokenizer_(tokenizer), encoder_(tokenizer), style_(style), end_(end) {}

  /// `where` names the record in errors: "file:line".
  Document encode(const std::string& record, bool json, const std::string& where);

 private:
  void add(const std::string& text, std::uint8_t learnt, Document& document);
  void finish(Document& document) const;

  Tokenizer tokenizer_;
  Encoder encoder_;
  ChatStyle style_;
  std::optional<int> end_;
};

}  // namespace qnext
