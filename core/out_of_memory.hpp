// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>

namespace qnext {

/// Whether an exception is that of an allocation that failed.
bool is_out_of_memory(const std::exception& error);

}  // namespace qnext
