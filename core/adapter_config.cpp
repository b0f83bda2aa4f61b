// SPDX-License-Identifier: Apache-2.0
#include "core/adapter_config.hpp"

#include <algorithm>
#include <cmath>

namespace qnext {
namespace {

constexpr std::string_view ending = ".weight";

bool is_stacked(std::string_view projection) {
  return projection.find(".experts.") != projection.npos;
}

}  // namespace

double AdapterConfig::scale() const {
  return alpha / (rank_stabilised ? std::sqrt(rank) : rank);
}

bool AdapterConfig::targets_weight(std::string_view name) const {
  const std::string projection = projection_of(name);
  const bool stacked = is_stacked(projection), of_module = name.starts_with("mtp.");
  return any() && std::any_of(targets.begin(), targets.end(), [&](const std::string& target) {
           const bool named = !of_module && (!stacked || target.find("experts.") != target.npos);
           return projection == target || (named && projection.ends_with("." + target));
         });
}

std::string projection_of(std::string_view weight) {
  return std::string(
      weight.substr(0, weight.size() - (weight.ends_with(ending) ? ending.size() : 0)));
}

std::string weight_of(std::string_view projection) {
  return std::string(projection) + std::string(is_stacked(projection) ? "" : ending);
}

}  // namespace qnext
