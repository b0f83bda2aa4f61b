// SPDX-License-Identifier: Apache-2.0
#include "io/text/added_tokens.hpp"

#include "io/text/utf8.hpp"

#include <algorithm>
#include <tuple>

namespace qnext {
namespace {

unsigned char first_byte(const AddedToken& token) {
  return static_cast<unsigned char>(token.content.front());
}

// Unicode's White_Space, which its stability policy closes for ever.
bool is_white(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// Where the last character before `end` begins.
std::size_t character_before(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) {
    --begin;
  }
  return begin;
}

std::size_t white_before(std::string_view text, std::size_t end) {
  while (end > 0) {
    const std::size_t begin = character_before(text, end);
    if (!is_white(utf8_front(text.substr(begin)).character)) {
      break;
    }
    end = begin;
  }
  return end;
}

std::size_t white_behind(std::string_view text, std::size_t begin) {
  while (begin < text.size()) {
    const Utf8Front front = utf8_front(text.substr(begin));
    if (!is_white(front.character)) {
      break;
    }
    begin += front.length;
  }
  return begin;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)),
      word_("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]", "characters of words") {
  std::sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
    return std::tuple(first_byte(a), b.content.size(), a.id) <
           std::tuple(first_byte(b), a.content.size(), b.id);
  });
  for (const AddedToken& token : tokens_) {
    ++begin_[first_byte(token) + 1];
  }
  for (int byte = 0; byte < 256; ++byte) {
    begin_[byte + 1] += begin_[byte];
  }
}

const AddedToken* AddedTokens::longest_at(std::string_view text, std::size_t at) const {
  const auto byte = static_cast<unsigned char>(text[at]);
  for (int i = begin_[byte]; i < begin_[byte + 1]; ++i) {
    if (text.substr(at).starts_with(tokens_[i].content)) {
      return &tokens_[i];
    }
  }
  return nullptr;
}

bool AddedTokens::stands_alone(std::string_view text, std::size_t begin, std::size_t end) const {
  RegularExpression::Matcher matcher(word_);
  const auto is_word = [&](std::size_t at) {
    RegularExpression::Match match;
    return matcher.find(text.substr(at, utf8_front(text.substr(at)).length), 0, match);
  };
  return (begin == 0 || !is_word(character_before(text, begin))) &&
         (end == text.size() || !is_word(end));
}

void AddedTokens::split(std::string_view text, std::vector<Part>& parts) const {
  std::size_t done = 0;  // of the text, is in the parts
  for (std::size_t at = 0; at < text.size() && !empty();) {
    const AddedToken* const token = longest_at(text, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    const std::size_t found = at;
    at += token->content.size();
    if (token->single_word && !stands_alone(text, found, at)) {
      continue;
    }
    const std::size_t end = token->rstrip ? white_behind(text, at) : at;
    const std::size_t begin =
        token->lstrip ? std::min(std::max(white_before(text, found), done), at) : found;
    if (done < begin) {
      parts.push_back({-1, text.substr(done, begin - done)});
    }
    parts.push_back({token->id, text.substr(begin, end - begin)});
    done = end;
  }
  if (done < text.size()) {
    parts.push_back({-1, text.substr(done)});
  }
}

}  // namespace qnext
