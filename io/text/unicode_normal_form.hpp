// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace qnext {

/// The composed normal form, NFC, of whole UTF-8: `text` itself where it has that form already,
/// else what is written to `buffer`. Unicode promises that the form of an assigned character never
/// changes, so that the version of the library matters only for characters that it does not know.
std::string_view composed_form(std::string_view text, std::string& buffer);

/// Of the library's tables: "15.0.0".
std::string unicode_version();

}  // namespace qnext
