// SPDX-License-Identifier: Apache-2.0
#include "core/types.hpp"

#include "core/require.hpp"

namespace qnext {

std::string_view name_of(DataType type) {
  return type == DataType::bf16 ? "bf16" : type == DataType::float32 ? "float" : "double";
}

DataType data_type_named(std::string_view name) {
  for (const DataType type : {DataType::bf16, DataType::float32, DataType::float64}) {
    if (name == name_of(type)) {
      return type;
    }
  }
  throw InputError("precision = " + std::string(name) + ": must be double, float or bf16");
}

}  // namespace qnext
