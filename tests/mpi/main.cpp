// SPDX-License-Identifier: Apache-2.0
#include "core/subnormals.hpp"
#include "parallel/runtime.hpp"
#include "tests/mpi/world.hpp"

#include <Kokkos_Core.hpp>
#include <gtest/gtest.h>

namespace qnext::test {
namespace {
const Communicator* all_ranks = nullptr;
}

const Communicator& world() {
  return *all_ranks;
}

}  // namespace qnext::test

int main(int argc, char** argv) {
  const qnext::Runtime runtime(argc, argv);
  qnext::test::all_ranks = &runtime.world();
  testing::InitGoogleTest(&argc, argv);
  Kokkos::ScopeGuard kokkos(argc, argv);
  qnext::flush_subnormals();
  return RUN_ALL_TESTS();
}
