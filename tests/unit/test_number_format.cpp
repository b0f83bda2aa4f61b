// SPDX-License-Identifier: Apache-2.0
#include "core/random.hpp"
#include "io/number_format.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace qnext {
namespace {

template <class To, class From>
To converted(NumberFormat from_format, From from, NumberFormat to_format) {
  To to{};
  convert_numbers(from_format, reinterpret_cast<const std::byte*>(&from), to_format,
                  reinterpret_cast<std::byte*>(&to), 1);
  return to;
}

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

TEST(NumberFormat, HasTheNamesOfTheFileFormat) {
  for (const char* const name : {"BF16", "F16", "F32", "F64"}) {
    EXPECT_EQ(name_of(*number_format_named(name)), name);
  }
  EXPECT_FALSE(number_format_named("I32").has_value());
  EXPECT_FALSE(number_format_named("").has_value());
}

TEST(NumberFormat, KnowsWhichHoldsWhich) {
  EXPECT_TRUE(holds(NumberFormat::f32, NumberFormat::f16));
  EXPECT_TRUE(holds(NumberFormat::f32, NumberFormat::bf16));
  EXPECT_TRUE(holds(NumberFormat::f16, NumberFormat::f16));
  EXPECT_FALSE(holds(NumberFormat::bf16, NumberFormat::f16));
  EXPECT_FALSE(holds(NumberFormat::f16, NumberFormat::bf16));
  EXPECT_FALSE(holds(NumberFormat::f32, NumberFormat::f64));
}

// All 65536 words: subnormal numbers, infinities and every NaN.
TEST(NumberFormat, KeepsEveryBitOfANarrowWordThereAndBack) {
  for (const NumberFormat narrow : {NumberFormat::bf16, NumberFormat::f16}) {
    for (int word = 0; word < 65536; ++word) {
      const auto bits = static_cast<std::uint16_t>(word);
      const auto single = converted<std::uint32_t>(narrow, bits, NumberFormat::f32);
      ASSERT_EQ(converted<std::uint16_t>(NumberFormat::f32, single, narrow), bits);
      const auto wide = converted<std::uint64_t>(narrow, bits, NumberFormat::f64);
      ASSERT_EQ(converted<std::uint16_t>(NumberFormat::f64, wide, narrow), bits);
      ASSERT_EQ(converted<std::uint64_t>(NumberFormat::f32, single, NumberFormat::f64), wide);
    }
  }
}

TEST(NumberFormat, WidensHalfWordsToTheirValue) {
  for (int word = 0; word < 0x7c00; ++word) {  // what is finite and positive
    const int exponent = word >> 10, fraction = word & 1023;
    const double value =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    ASSERT_EQ(
        converted<float>(NumberFormat::f16, static_cast<std::uint16_t>(word), NumberFormat::f32),
        value);
  }
}

// Halfway between two neighbours the even one is taken, next to it the nearer one.
TEST(NumberFormat, RoundsToTheNearestEvenHalf) {
  for (int word = 0; word < 0x7bff; ++word) {
    const auto value = [](int w) {
      return converted<double>(NumberFormat::f16, static_cast<std::uint16_t>(w), NumberFormat::f64);
    };
    const double middle = (value(word) + value(word + 1)) / 2;
    const auto rounded = [](double x) {
      return static_cast<int>(converted<std::uint16_t>(NumberFormat::f64, x, NumberFormat::f16));
    };
    ASSERT_EQ(rounded(middle), word % 2 == 0 ? word : word + 1);
    ASSERT_EQ(rounded(std::nextafter(middle, 0.0)), word);
    ASSERT_EQ(rounded(std::nextafter(middle, 1e9)), word + 1);
    ASSERT_EQ(rounded(-middle), 0x8000 + (word % 2 == 0 ? word : word + 1));
  }
  EXPECT_EQ(converted<std::uint16_t>(NumberFormat::f64, 65519.9, NumberFormat::f16), 0x7bff);
  EXPECT_EQ(converted<std::uint16_t>(NumberFormat::f64, 65520.0, NumberFormat::f16), 0x7c00);
  EXPECT_EQ(converted<std::uint16_t>(NumberFormat::f64, 1e300, NumberFormat::f16), 0x7c00);
  EXPECT_EQ(converted<std::uint16_t>(NumberFormat::f64, -1e-300, NumberFormat::f16), 0x8000);
}

// The compiler and core/bf16 round the same way where the processor does not flush.
TEST(NumberFormat, RoundsAsTheLanguageDoes) {
  const std::uint64_t key = random_key(1, "formats");
  for (std::uint64_t i = 0; i < 100'000; ++i) {
    const double x = std::ldexp(random_uniform(key, 2 * i) - 0.5,
                                static_cast<int>(60 * random_uniform(key, 2 * i + 1)) - 30);
    const float single = static_cast<float>(x);
    ASSERT_EQ(converted<std::uint32_t>(NumberFormat::f64, x, NumberFormat::f32), bits_of(single));
    ASSERT_EQ(converted<std::uint16_t>(NumberFormat::f32, single, NumberFormat::bf16),
              bf16(single).bits);
    ASSERT_EQ(converted<double>(NumberFormat::f32, single, NumberFormat::f64), double{single});
  }
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(converted<float>(NumberFormat::f64, 1e300, NumberFormat::f32), infinity);
  EXPECT_EQ(converted<std::uint16_t>(NumberFormat::f32, 3.4e38f, NumberFormat::bf16), 0x7f80);
}

// 2^-149 as a float, which a processor that flushes takes for zero.
TEST(NumberFormat, KeepsSubnormalNumbersAndNaN) {
  const std::uint32_t smallest = 1, negative = 0x807fffff, nan_of_lowest_bit = 0x7f800001;
  EXPECT_EQ(converted<std::uint64_t>(NumberFormat::f32, smallest, NumberFormat::f64),
            std::uint64_t{1023 - 149} << 52);
  for (const std::uint32_t bits : {smallest, negative, nan_of_lowest_bit}) {
    const auto wide = converted<std::uint64_t>(NumberFormat::f32, bits, NumberFormat::f64);
    EXPECT_EQ(converted<std::uint32_t>(NumberFormat::f64, wide, NumberFormat::f32), bits);
  }
  // What a narrower one cannot hold of a NaN leaves a NaN.
  EXPECT_EQ(converted<std::uint16_t>(NumberFormat::f32, nan_of_lowest_bit, NumberFormat::bf16),
            0x7fc0);
}

TEST(NumberFormat, NeedsNoAlignment) {
  std::vector<std::byte> from(1 + 3 * 2), to(1 + 3 * 4);
  const std::uint16_t words[] = {0x3f80, 0xc000, 0x0001};
  std::memcpy(from.data() + 1, words, sizeof(words));
  convert_numbers(NumberFormat::bf16, from.data() + 1, NumberFormat::f32, to.data() + 1, 3);
  std::uint32_t found[3];
  std::memcpy(found, to.data() + 1, sizeof(found));
  EXPECT_EQ(found[0], 0x3f800000u);
  EXPECT_EQ(found[1], 0xc0000000u);
  EXPECT_EQ(found[2], 0x00010000u);
}

}  // namespace
}  // namespace qnext
