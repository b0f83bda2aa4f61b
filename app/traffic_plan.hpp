// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/run_config.hpp"
#include "core/parameter.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

/// What the first rank of a job sends in one training step, by the group of ranks that it goes to:
/// the names are those of `--profile`. Arithmetic alone. Exact, but for the rows of experts, which
/// are counted as if all experts were chosen alike, and what a capacity makes ranks ask each other.
/// Left out: the groups `data`, `stage`, `pipeline` and `job`, whose messages are a few numbers of
/// the step as a whole.
struct TrafficPlan {
  struct Line {
    std::string group;
    std::int64_t bytes = 0;
    std::int64_t calls = 0;
  };
  std::vector<Line> lines;

  std::int64_t bytes() const;
  std::int64_t calls() const;
};

/// `table` is that of the first rank: registered, without memory.
TrafficPlan plan_traffic(const RunConfig& config, const ParameterTable& table);

}  // namespace qnext
