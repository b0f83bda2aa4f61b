// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "parallel/communicator.hpp"

namespace qnext::test {

/// All ranks that the test was started with.
const Communicator& world();

}  // namespace qnext::test
