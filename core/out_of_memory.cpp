// SPDX-License-Identifier: Apache-2.0
#include "core/out_of_memory.hpp"

#include <new>
#include <string_view>

namespace qnext {

// Kokkos throws a plain runtime_error for a view with a label, and says so in words alone.
bool is_out_of_memory(const std::exception& error) {
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
         std::string_view(error.what()).starts_with("Kokkos failed to allocate memory");
}

}  // namespace qnext
