// SPDX-License-Identifier: Apache-2.0
#include "io/text/utf8.hpp"

#include <cstring>

namespace qnext {
namespace {

// What a first byte asks of those behind it.
struct Lead {
  int following;            // bytes
  unsigned char low, high;  // bounds of the second byte; all later ones are 80 to BF
};

Lead lead_of(unsigned char byte) {
  if (byte >= 0xC2 && byte <= 0xDF) {
    return {1, 0x80, 0xBF};
  }
  if (byte >= 0xE0 && byte <= 0xEF) {
    return {2, byte == 0xE0 ? static_cast<unsigned char>(0xA0) : static_cast<unsigned char>(0x80),
            byte == 0xED ? static_cast<unsigned char>(0x9F) : static_cast<unsigned char>(0xBF)};
  }
  if (byte >= 0xF0 && byte <= 0xF4) {
    return {3, byte == 0xF0 ? static_cast<unsigned char>(0x90) : static_cast<unsigned char>(0x80),
            byte == 0xF4 ? static_cast<unsigned char>(0x8F) : static_cast<unsigned char>(0xBF)};
  }
  return {0, 0, 0};
}

}  // namespace

Utf8Front utf8_front(std::string_view text) {
  using Kind = Utf8Front::Kind;
  if (text.empty()) {
    return {};
  }
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) {
    return {Kind::whole, 1, byte(0)};
  }
  const Lead lead = lead_of(byte(0));
  if (lead.following == 0) {
    return {Kind::broken, 1};
  }
  char32_t character = byte(0) & (0x3F >> lead.following);
  for (int i = 1; i <= lead.following; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (at == text.size()) {
      return {Kind::unfinished, at};
    }
    const bool second = i == 1;
    if (byte(at) < (second ? lead.low : 0x80) || byte(at) > (second ? lead.high : 0xBF)) {
      return {Kind::broken, at};
    }
    character = (character << 6) | (byte(at) & 0x3F);
  }
  return {Kind::whole, static_cast<std::size_t>(lead.following) + 1, character};
}

std::size_t first_broken_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (std::uint64_t eight = 0; text.size() - at >= 8) {
      std::memcpy(&eight, text.data() + at, 8);
      if ((eight & 0x8080808080808080u) == 0) {
        at += 8;
        continue;
      }
    }
    const Utf8Front front = utf8_front(text.substr(at));
    if (front.kind != Utf8Front::Kind::whole) {
      return at;
    }
    at += front.length;
  }
  return at;
}

bool is_ascii(std::string_view text) {
  unsigned char all = 0;
  for (const char byte : text) {
    all |= static_cast<unsigned char>(byte);
  }
  return all < 0x80;
}

void append_utf8(char32_t character, std::string& text) {
  const auto add = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (character < 0x80) {
    add(character);
  } else if (character < 0x800) {
    add(0xC0 | (character >> 6));
    add(0x80 | (character & 0x3F));
  } else if (character < 0x10000) {
    add(0xE0 | (character >> 12));
    add(0x80 | ((character >> 6) & 0x3F));
    add(0x80 | (character & 0x3F));
  } else {
    add(0xF0 | (character >> 18));
    add(0x80 | ((character >> 12) & 0x3F));
    add(0x80 | ((character >> 6) & 0x3F));
    add(0x80 | (character & 0x3F));
  }
}

}  // namespace qnext
