// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace qnext {

/// What stands at the front of some bytes.
struct Utf8Front {
  enum class Kind { whole, broken, unfinished };

  Kind kind = Kind::unfinished;
  std::size_t length = 0;       // bytes; of what is broken those that U+FFFD replaces
  char32_t character = 0xFFFD;  // of a whole one
};

/// The character at the front of `text`, as table 3-7 of the Unicode standard allows it: shortest
/// form, no surrogates. Broken: bytes that begin no character, as many as began one. Unfinished:
/// the text ends within what may still become one, or is empty.
Utf8Front utf8_front(std::string_view text);

/// Where the first byte stands that is not part of a whole character; the size if there is none.
std::size_t first_broken_utf8(std::string_view text);

bool is_ascii(std::string_view text);

void append_utf8(char32_t character, std::string& text);

}  // namespace qnext
