// SPDX-License-Identifier: Apache-2.0
#include "core/out_of_memory.hpp"
#include "core/types.hpp"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

namespace qnext {
namespace {

TEST(OutOfMemory, IsWhatKokkosThrows) {
  try {
    const Tensor<double, 1> too_large("too_large", std::size_t{1} << 56);
    FAIL() << "a view of 2^59 bytes";
  } catch (const std::exception& error) {
    EXPECT_TRUE(is_out_of_memory(error)) << error.what();
  }
}

TEST(OutOfMemory, IsBadAllocAndNothingElse) {
  EXPECT_TRUE(is_out_of_memory(std::bad_alloc()));
  EXPECT_FALSE(is_out_of_memory(std::runtime_error("odd")));
}

}  // namespace
}  // namespace qnext
