// SPDX-License-Identifier: Apache-2.0
#include "core/types.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace qnext {
namespace {

// The main program of the tests has called flush_subnormals, as qnext does.
TEST(Subnormals, AreZeroInEveryThread) {
  const Tensor<float, 1> x("x", 1000);
  Kokkos::deep_copy(x, std::numeric_limits<float>::min());
  Kokkos::parallel_for(
      "test::halve", Kokkos::RangePolicy<Exec>(0, 1000),
      KOKKOS_LAMBDA(const int i) { x(i) *= 0.5f; });
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), x);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(host(i), 0.0f);
  }
}

}  // namespace
}  // namespace qnext
