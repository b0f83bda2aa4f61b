// SPDX-License-Identifier: Apache-2.0
#include "io/number_format.hpp"

#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

namespace qnext {
namespace {

/// A binary format of IEEE 754: a sign, `exponent` bits and `fraction` bits in a Word.
template <class WordType, int exponent, int fraction>
struct Binary {
  using Word = WordType;
  static constexpr int fraction_bits = fraction;
  static constexpr int top = (1 << exponent) - 1;  // of infinities and NaN
  static constexpr int bias = top / 2;
  static constexpr int sign_shift = exponent + fraction;
};
using Bf16 = Binary<std::uint16_t, 8, 7>;
using F16 = Binary<std::uint16_t, 5, 10>;
using F32 = Binary<std::uint32_t, 8, 23>;
using F64 = Binary<std::uint64_t, 11, 52>;

constexpr std::uint64_t fraction_mask(int bits) {
  return (std::uint64_t{1} << bits) - 1;
}

/// The same number as the bits of a double, which holds those of all formats.
template <class From>
std::uint64_t widen(typename From::Word word) {
  if constexpr (std::is_same_v<From, F64>) {
    return word;
  }
  const std::uint64_t sign = std::uint64_t{word} >> From::sign_shift << F64::sign_shift;
  const int exponent = static_cast<int>(std::uint64_t{word} >> From::fraction_bits) & From::top;
  std::uint64_t fraction = word & fraction_mask(From::fraction_bits);
  constexpr int shift = F64::fraction_bits - From::fraction_bits;
  if (exponent == From::top) {
    return sign | std::uint64_t{F64::top} << F64::fraction_bits | fraction << shift;
  }
  if (exponent != 0) {
    return sign |
           static_cast<std::uint64_t>(exponent - From::bias + F64::bias) << F64::fraction_bits |
           fraction << shift;
  }
  if (fraction == 0) {
    return sign;
  }
  const int highest = 63 - std::countl_zero(fraction);  // subnormal: fraction * 2^(1 - bias - bits)
  fraction = (fraction << (F64::fraction_bits - highest)) & fraction_mask(F64::fraction_bits);
  return sign |
         static_cast<std::uint64_t>(highest + 1 - From::bias - From::fraction_bits + F64::bias)
             << F64::fraction_bits |
         fraction;
}

/// The nearest number of a narrower format, of two that are as near the even one.
template <class To>
typename To::Word narrow(std::uint64_t word) {
  const std::uint64_t sign = word >> F64::sign_shift << To::sign_shift;
  const std::uint64_t infinity = std::uint64_t{To::top} << To::fraction_bits;
  const int wide_exponent = static_cast<int>(word >> F64::fraction_bits) & F64::top;
  const std::uint64_t fraction = word & fraction_mask(F64::fraction_bits);
  constexpr int cut = F64::fraction_bits - To::fraction_bits;
  if (wide_exponent == F64::top) {
    const std::uint64_t quiet = std::uint64_t{1} << (To::fraction_bits - 1);
    const std::uint64_t kept = fraction >> cut;  // of a NaN something has to stay
    return static_cast<typename To::Word>(sign | infinity |
                                          (fraction != 0 && kept == 0 ? quiet : kept));
  }
  const int exponent = wide_exponent - F64::bias + To::bias;
  const int shift = exponent > 0 ? cut : cut + 1 - exponent;  // subnormal numbers lose more bits
  if (wide_exponent == 0 || shift > F64::fraction_bits + 1) {
    return static_cast<typename To::Word>(sign);  // below half of the smallest
  }
  if (exponent >= To::top) {
    return static_cast<typename To::Word>(sign | infinity);
  }
  const std::uint64_t number = fraction | std::uint64_t{1} << F64::fraction_bits;
  const std::uint64_t rest = number & fraction_mask(shift), half = std::uint64_t{1} << (shift - 1);
  std::uint64_t rounded = number >> shift;
  rounded += rest > half || (rest == half && (rounded & 1) != 0);
  // The leading bit of a normal number counts as one of the exponent, and so does a carry.
  const std::uint64_t before = static_cast<std::uint64_t>(exponent > 0 ? exponent - 1 : 0);
  return static_cast<typename To::Word>(sign | ((before << To::fraction_bits) + rounded));
}

template <class From, class To>
typename To::Word convert(typename From::Word word) {
  if constexpr (std::is_same_v<From, Bf16> && std::is_same_v<To, F32>) {
    return std::uint32_t{word} << 16;
  } else if constexpr (std::is_same_v<To, F64>) {
    return widen<From>(word);
  } else {
    return narrow<To>(widen<From>(word));
  }
}

template <class From, class To>
void convert_all(const std::byte* from, std::byte* to, std::int64_t count) {
  using Word = typename From::Word;
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(Word));
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      Word word;
      std::memcpy(&word, from + i * sizeof(Word), sizeof(Word));
      const typename To::Word converted = convert<From, To>(word);
      std::memcpy(to + i * sizeof(converted), &converted, sizeof(converted));
    }
  }
}

template <class From>
void convert_from(NumberFormat format, const std::byte* from, std::byte* to, std::int64_t count) {
  switch (format) {
    case NumberFormat::bf16:
      return convert_all<From, Bf16>(from, to, count);
    case NumberFormat::f16:
      return convert_all<From, F16>(from, to, count);
    case NumberFormat::f32:
      return convert_all<From, F32>(from, to, count);
    case NumberFormat::f64:
      return convert_all<From, F64>(from, to, count);
  }
}

constexpr std::array<std::string_view, 4> names = {"BF16", "F16", "F32", "F64"};

}  // namespace

std::string_view name_of(NumberFormat format) {
  return names[static_cast<std::size_t>(format)];
}

std::optional<NumberFormat> number_format_named(std::string_view name) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) {
      return static_cast<NumberFormat>(i);
    }
  }
  return std::nullopt;
}

int bytes_of(NumberFormat format) {
  constexpr std::array<int, 4> bytes = {2, 2, 4, 8};
  return bytes[static_cast<std::size_t>(format)];
}

NumberFormat number_format_of(DataType type) {
  return type == DataType::bf16      ? NumberFormat::bf16
         : type == DataType::float32 ? NumberFormat::f32
                                     : NumberFormat::f64;
}

bool holds(NumberFormat wide, NumberFormat narrow) {
  return wide == narrow || (bytes_of(wide) > bytes_of(narrow));
}

void convert_numbers(NumberFormat from_format, const std::byte* from, NumberFormat to_format,
                     std::byte* to, std::int64_t count) {
  switch (from_format) {
    case NumberFormat::bf16:
      return convert_from<Bf16>(to_format, from, to, count);
    case NumberFormat::f16:
      return convert_from<F16>(to_format, from, to, count);
    case NumberFormat::f32:
      return convert_from<F32>(to_format, from, to, count);
    case NumberFormat::f64:
      return convert_from<F64>(to_format, from, to, count);
  }
}

}  // namespace qnext
