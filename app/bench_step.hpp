// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/measure.hpp"
#include "app/run_config.hpp"

#include <vector>

namespace qnext {

/// Times the phases of a training step of that run, on random tokens, and all of it together.
template <class Storage>
std::vector<Measurement> bench_step(const RunConfig& config);

}  // namespace qnext
