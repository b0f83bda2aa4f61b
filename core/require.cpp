// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"

namespace qnext {

void require(bool condition, std::string_view message, const std::source_location& where) {
  if (condition) {
    return;
  }
  throw Error(Status::defect, std::string(where.file_name()) + ":" + std::to_string(where.line()) +
                                  ": " + where.function_name() + ": " + std::string(message));
}

}  // namespace qnext
