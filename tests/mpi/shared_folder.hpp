// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/mpi/world.hpp"
#include "tests/temporary_folder.hpp"

#include <optional>
#include <string>

namespace qnext::test {

/// The temporary folder of the first rank, for all.
struct SharedFolder {
  std::optional<TemporaryFolder> own;
  std::string path;

  SharedFolder() {
    if (world().first()) {
      own.emplace();
      path = own->path();
    }
    world().broadcast(path, 0);
  }
  ~SharedFolder() { world().barrier(); }
};

}  // namespace qnext::test
