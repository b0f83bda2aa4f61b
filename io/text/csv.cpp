// SPDX-License-Identifier: Apache-2.0
#include "io/text/csv.hpp"

#include "core/require.hpp"

#include <fmt/format.h>

namespace qnext {

std::vector<std::vector<std::string>> parse_csv(std::string_view text, const std::string& where) {
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> row(1);
  bool quoted = false, any = false;  // any: the row has begun
  std::size_t opened = 0;
  const auto end_row = [&] {
    if (any) {
      rows.push_back(row);
    }
    row.assign(1, "");
    any = false;
  };
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char letter = text[at];
    if (quoted) {
      if (letter != '"') {
        row.back() += letter;
      } else if (text.substr(at + 1, 1) == "\"") {
        row.back() += '"';
        ++at;
      } else {
        quoted = false;
      }
    } else if (letter == '"' && row.back().empty()) {
      quoted = any = true;
      opened = at;
    } else if (letter == ',') {
      row.emplace_back();
      any = true;
    } else if (letter == '\n') {
      end_row();
    } else if (letter != '\r' || text.substr(at + 1, 1) != "\n") {
      row.back() += letter;
      any = true;
    }
  }
  if (quoted) {
    throw InputError(fmt::format("{}: the quote at byte {} is never closed", where, opened));
  }
  end_row();
  return rows;
}

}  // namespace qnext
