// SPDX-License-Identifier: Apache-2.0
#include "io/array.hpp"

namespace qnext {

std::int64_t elements_of(const std::vector<std::int64_t>& extents) {
  std::int64_t elements = 1;
  for (const std::int64_t extent : extents) {
    elements *= extent;
  }
  return elements;
}

ElementType element_type_of(DataType type) {
  return type == DataType::bf16      ? ElementType::bf16
         : type == DataType::float32 ? ElementType::float32
                                     : ElementType::float64;
}

std::string_view name_of(ElementType type) {
  constexpr std::string_view names[] = {"bf16",  "float32", "float64",     "int32",
                                        "int64", "text",    "another type"};
  return names[static_cast<int>(type)];
}

std::int64_t DatasetShape::elements() const {
  return elements_of(extents);
}

std::string to_string(const std::vector<std::int64_t>& extents) {
  std::string text = "(";
  for (std::size_t i = 0; i < extents.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(extents[i]);
  }
  return text + ")";
}

}  // namespace qnext
