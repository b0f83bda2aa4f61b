// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/run_config.hpp"

#include <string>

namespace qnext {

/// Times the prefill of 512 tokens and, behind 64 tokens, steps of one document, and holds the
/// steps against the rates at which this machine reads memory: their bound. As text.
template <class Storage>
std::string bench_decode(const RunConfig& config);

}  // namespace qnext
