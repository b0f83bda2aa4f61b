// SPDX-License-Identifier: Apache-2.0
#include "io/text/text_decoder.hpp"

#include "io/text/utf8.hpp"

#include <utility>

namespace qnext {

std::string TextDecoder::add(int id) {
  if (special_ == Tokenizer::Special::leave_out && tokenizer_.is_special(id)) {
    return {};
  }
  pending_ += tokenizer_.bytes(id);
  return take_whole();
}

std::string TextDecoder::take_whole() {
  std::string text;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Front front = utf8_front(rest);
    if (front.kind == Utf8Front::Kind::unfinished) {
      break;
    }
    if (front.kind == Utf8Front::Kind::broken) {
      append_utf8(0xFFFD, text);
    } else {
      text += rest.substr(0, front.length);
    }
    rest.remove_prefix(front.length);
  }
  pending_ = std::string(rest);
  return text;
}

std::string TextDecoder::finish() {
  std::string text;
  if (!std::exchange(pending_, {}).empty()) {
    append_utf8(0xFFFD, text);
  }
  return text;
}

}  // namespace qnext
