// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace qnext {

/// The floating-point numbers that a safetensors file may hold.
enum class NumberFormat { bf16, f16, f32, f64 };

/// "BF16", "F16", "F32" or "F64", as a safetensors header says it.
std::string_view name_of(NumberFormat format);

/// Nothing where the name is none of the four.
std::optional<NumberFormat> number_format_named(std::string_view name);

/// Of one number.
int bytes_of(NumberFormat format);

/// What a parameter of that type is held in.
NumberFormat number_format_of(DataType type);

/// Whether every number of `narrow` is one of `wide`: then going there and back changes no bit.
bool holds(NumberFormat wide, NumberFormat narrow);

/// `count` numbers in another format, rounded to nearest even where it is narrower. All of it is
/// arithmetic of integers: subnormal numbers and the bits of NaN stay, whatever the processor does
/// with them. Neither address need be aligned.
void convert_numbers(NumberFormat from_format, const std::byte* from, NumberFormat to_format,
                     std::byte* to, std::int64_t count);

}  // namespace qnext
