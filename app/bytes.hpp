// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qnext {

/// "12.30 GiB"
std::string format_bytes(std::int64_t bytes);

/// A number of bytes, alone or with a unit behind it: "2 GiB", "1.5GB", "1000000". Units of 1024
/// are KiB, MiB, GiB, TiB, those of 1000 KB, MB, GB, TB. Nothing if it is none.
std::optional<std::int64_t> parse_bytes(std::string_view text);

}  // namespace qnext
