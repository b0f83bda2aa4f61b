// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "parallel/communicator.hpp"

#include <functional>

namespace qnext {

/// Does `work` on each rank of a group. Where it fails on one of them it fails on all, with the
/// error of the lowest such rank, so that nobody waits for a rank that gave up. What `work` itself
/// asks of the group has to fail on all ranks or on none.
void all_or_none(const Communicator& ranks, const std::function<void()>& work);

}  // namespace qnext
