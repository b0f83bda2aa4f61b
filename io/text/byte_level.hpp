// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qnext {

/// The bytes that a token of a byte-level vocabulary is spelled for, or nothing where a character
/// of it stands for no byte. Each byte has a visible character: the printable ones of Latin-1
/// themselves, the 68 others U+0100, U+0101, ... in their order.
std::optional<std::string> bytes_of_spelling(std::string_view spelling);

}  // namespace qnext
