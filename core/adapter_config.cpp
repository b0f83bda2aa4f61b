// SPDX-License-Identifier: Apache-2.0
#include "core/adapter_config.hpp"

#include "core/require.hpp"

#include <algorithm>
#include <cmath>

namespace qnext {

double AdapterConfig::scale() const {
  return alpha / (rank_stabilised ? std::sqrt(rank) : rank);
}

bool AdapterConfig::targets_weight(std::string_view name) const {
  if (!any() || name.starts_with("mtp.")) {
    return false;
  }
  const std::string projection = projection_of(name);
  return std::any_of(targets.begin(), targets.end(), [&](const std::string& target) {
    return projection == target || projection.ends_with("." + target);
  });
}

std::string projection_of(std::string_view weight) {
  constexpr std::string_view ending = ".weight";
  require(weight.ends_with(ending), std::string(weight) + ": is the weight of no projection");
  return std::string(weight.substr(0, weight.size() - ending.size()));
}

}  // namespace qnext
