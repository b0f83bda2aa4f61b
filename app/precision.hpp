// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/bf16.hpp"
#include "core/types.hpp"

namespace qnext {

/// Calls function.template operator()<Storage>() for the storage type that a deck or a file names:
/// the one place where a precision of run time becomes a type.
template <class Function>
decltype(auto) with_storage(DataType type, const Function& function) {
  switch (type) {
    case DataType::bf16:
      return function.template operator()<bf16>();
    case DataType::float32:
      return function.template operator()<float>();
    default:
      return function.template operator()<double>();
  }
}

}  // namespace qnext
