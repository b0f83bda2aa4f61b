// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qnext {

/// The rows of comma-separated values as RFC 4180 says: a field in quotes may hold commas, line
/// breaks, and quotes twice. `where` names the text in errors.
std::vector<std::vector<std::string>> parse_csv(std::string_view text, const std::string& where);

}  // namespace qnext
