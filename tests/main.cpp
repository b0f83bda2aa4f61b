// SPDX-License-Identifier: Apache-2.0
#include "core/subnormals.hpp"

#include <Kokkos_Core.hpp>
#include <gtest/gtest.h>

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  Kokkos::ScopeGuard kokkos(argc, argv);
  qnext::flush_subnormals();
  return RUN_ALL_TESTS();
}
