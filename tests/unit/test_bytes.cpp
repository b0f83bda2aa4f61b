// SPDX-License-Identifier: Apache-2.0
#include "app/bytes.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

TEST(Bytes, AreReadWithAndWithoutAUnit) {
  EXPECT_EQ(parse_bytes("0"), 0);
  EXPECT_EQ(parse_bytes("1000000"), 1000000);
  EXPECT_EQ(parse_bytes("512 B"), 512);
  EXPECT_EQ(parse_bytes("2 GiB"), std::int64_t{2} << 30);
  EXPECT_EQ(parse_bytes("1.5MiB"), 3 << 19);
  EXPECT_EQ(parse_bytes("80GB"), 80000000000);
  EXPECT_EQ(parse_bytes("0.5 TiB"), std::int64_t{1} << 39);
}

TEST(Bytes, AreRefused) {
  for (const char* const text :
       {"", "GiB", "-1", "-2 GiB", "2 gib", "2 GiBs", "2 G", "nan", "inf", "1e30", "9 9"}) {
    EXPECT_FALSE(parse_bytes(text)) << text;
  }
}

TEST(Bytes, AreWrittenInTheLargestUnitBelowThem) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(std::int64_t{3} << 29), "1.50 GiB");
}

}  // namespace
}  // namespace qnext
