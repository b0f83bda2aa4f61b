// SPDX-License-Identifier: Apache-2.0
#include "io/text/byte_level.hpp"

#include "io/text/utf8.hpp"

#include <array>

namespace qnext {
namespace {

constexpr char32_t characters = 0x144;  // one behind the last that stands for a byte

bool shows_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// Of each character the byte, or -1.
std::array<int, characters> make_alphabet() {
  std::array<int, characters> bytes{};
  bytes.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    bytes[shows_itself(byte) ? static_cast<char32_t>(byte) : next++] = byte;
  }
  return bytes;
}

}  // namespace

std::optional<std::string> bytes_of_spelling(std::string_view spelling) {
  static const std::array<int, characters> alphabet = make_alphabet();
  std::string bytes;
  while (!spelling.empty()) {
    const Utf8Front front = utf8_front(spelling);
    if (front.kind != Utf8Front::Kind::whole || front.character >= characters ||
        alphabet[front.character] < 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(alphabet[front.character]));
    spelling.remove_prefix(front.length);
  }
  return bytes;
}

}  // namespace qnext
