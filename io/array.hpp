// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qnext {

/// What the elements of an array in a file are. bf16 is a 16-bit floating-point type of its own in
/// the file, which h5dump and h5py show as numbers.
enum class ElementType { bf16, float32, float64, int32, int64, text, other };

ElementType element_type_of(DataType type);

/// "bf16", "float32", ...
std::string_view name_of(ElementType type);

/// A dataset without its elements. A scalar has no extents.
struct DatasetShape {
  ElementType type = ElementType::other;
  std::vector<std::int64_t> extents;

  std::int64_t elements() const;
};

/// A dataset with its elements, the last extent running fastest.
template <class T>
struct Array {
  std::vector<T> values;
  std::vector<std::int64_t> extents;
};

/// How many elements that many extents have; none: one.
std::int64_t elements_of(const std::vector<std::int64_t>& extents);

/// Extents as a message shows them: "(3, 4)".
std::string to_string(const std::vector<std::int64_t>& extents);

}  // namespace qnext
