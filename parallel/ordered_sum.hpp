// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"
#include "parallel/communicator.hpp"

#include <cstdint>

namespace qnext {

/// Every number becomes the sum over all ranks of the group, in the order of the ranks: the same
/// bits on each of them, which no library of messages promises. Each rank adds one part and sends
/// it to the others, in pieces for which `received` has room: at least ranks - 1 numbers. Sends 2
/// (ranks - 1) / ranks of the numbers.
template <class Real>
void ordered_sum(const Exec& exec, const Communicator& group, const Tensor<Real, 1>& values,
                 const Tensor<Real, 1>& received);

/// Numbers that a rank sends in a sum of `count`, with so much room. Arithmetic alone, for a plan.
std::int64_t ordered_sum_sent(int ranks, int rank, std::int64_t count, std::int64_t room);

/// Numbers of `received` with which `count` numbers go in one piece.
std::int64_t ordered_sum_room(int ranks, std::int64_t count);

}  // namespace qnext
