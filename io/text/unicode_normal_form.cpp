// SPDX-License-Identifier: Apache-2.0
#include "io/text/unicode_normal_form.hpp"

#include "io/text/utf8.hpp"

#include <algorithm>
#include <bitset>
#include <memory>
#include <utf8proc.h>
#include <vector>

namespace qnext {
namespace {

constexpr char32_t first_moving = 0x300;   // no character below is touched by those beside it
constexpr char32_t last_moving = 0x30000;  // none from here on decomposes or combines
constexpr int longest_decomposition = 18;  // of one character, compatible ones included

using Characters = std::vector<utf8proc_int32_t>;

int combining_class(utf8proc_int32_t character) {
  return utf8proc_get_property(character)->combining_class;
}

void decompose(char32_t character, Characters& out) {
  const std::size_t before = out.size();
  out.resize(before + longest_decomposition);
  int boundary = 0;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(character), out.data() + before,
                              longest_decomposition, UTF8PROC_DECOMPOSE, &boundary);
  out.resize(before + static_cast<std::size_t>(count));
}

// Composes what is decomposed and in canonical order.
void compose(Characters& characters) {
  const utf8proc_ssize_t count =
      utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  characters.resize(static_cast<std::size_t>(count));
}

// Characters that may change, or change what stands before them. All others stay as they are and
// separate what is on their two sides.
class Moving {
 public:
  Moving() {
    Characters characters, again;
    for (char32_t c = 0xC0; c < last_moving; ++c) {
      if (combining_class(static_cast<utf8proc_int32_t>(c)) != 0) {
        moves_.set(c);
      }
      characters.clear();
      decompose(c, characters);
      if (characters.size() == 1 && characters[0] == static_cast<utf8proc_int32_t>(c)) {
        continue;
      }
      for (std::size_t i = 1; i < characters.size(); ++i) {
        moves_.set(static_cast<std::size_t>(characters[i]));
      }
      again = characters;
      compose(again);
      if (again.size() != 1 || again[0] != static_cast<utf8proc_int32_t>(c)) {
        moves_.set(c);
      }
    }
  }

  bool operator()(char32_t character) const {
    return character >= first_moving && character < last_moving && moves_[character];
  }

 private:
  std::bitset<last_moving> moves_;
};

// Marks are sorted here, because utf8proc's exchange of neighbours takes the square of their
// number.
void append_composed(std::string_view text, std::string& out) {
  Characters characters;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Front front = utf8_front(text.substr(at));
    decompose(front.character, characters);
    at += front.length;
  }
  const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
  for (auto begin = characters.begin(); begin != characters.end();) {
    begin = std::find_if(begin, characters.end(), is_mark);
    const auto end = std::find_if_not(begin, characters.end(), is_mark);
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    begin = end;
  }
  compose(characters);
  for (const utf8proc_int32_t character : characters) {
    append_utf8(static_cast<char32_t>(character), out);
  }
}

}  // namespace

std::string_view composed_form(std::string_view text, std::string& buffer) {
  if (is_ascii(text)) {
    return text;
  }
  static const auto moving = std::make_unique<const Moving>();
  buffer.clear();
  std::size_t copied = 0;  // of the text, everything before is in the buffer
  std::size_t before = 0;  // where the character in front of `at` begins
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Front front = utf8_front(text.substr(at));
    if (!(*moving)(front.character)) {
      before = at;
      at += front.length;
      continue;
    }
    std::size_t end = at + front.length;
    while (end < text.size()) {
      const Utf8Front next = utf8_front(text.substr(end));
      if (!(*moving)(next.character)) {
        break;
      }
      end += next.length;
    }
    buffer.append(text, copied, before - copied);
    append_composed(text.substr(before, end - before), buffer);
    copied = before = at = end;
  }
  if (copied == 0) {
    return text;
  }
  buffer.append(text, copied);
  return buffer;
}

std::string unicode_version() {
  return utf8proc_unicode_version();
}

}  // namespace qnext
