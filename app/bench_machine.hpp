// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/machine.hpp"
#include "app/run_config.hpp"
#include "parallel/communicator.hpp"

namespace qnext {

/// Measures the rates of one rank with the layers of a deck, all ranks of `world` at the same time,
/// and messages between neighbours. Every rank gets the rates of the slowest.
template <class Storage>
Machine bench_machine(const RunConfig& config, const Communicator& world);

}  // namespace qnext
