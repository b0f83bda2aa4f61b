// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace qnext {

/// The largest resident set of this process so far in bytes, or 0 where the system does not say.
std::int64_t peak_resident_bytes();

/// The resident set at this moment, or 0 likewise.
std::int64_t resident_bytes();

}  // namespace qnext
