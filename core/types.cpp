// SPDX-License-Identifier: Apache-2.0
#include "core/types.hpp"

namespace qnext {

std::string_view name_of(DataType type) {
  return type == DataType::bf16 ? "bf16" : type == DataType::float32 ? "float" : "double";
}

}  // namespace qnext
