// SPDX-License-Identifier: Apache-2.0
#include "app/peft_ranks.hpp"

#include "core/require.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace qnext {
namespace {

// The patterns of a key with their values. Each matches last words of names, as PEFT has it.
std::vector<std::pair<RegularExpression, const Json*>> patterns_of(const Json& config,
                                                                   const char* key,
                                                                   const std::string& where) {
  std::vector<std::pair<RegularExpression, const Json*>> found;
  const Json* const patterns = config.find(key);
  if (!is_unset(patterns)) {
    for (const auto& [pattern, value] : patterns->object(where)) {
      found.emplace_back(RegularExpression("^(?:.*\\.)?(?:" + pattern + ")$", where), &value);
    }
  }
  return found;
}

bool matches(const RegularExpression& pattern, const std::string& name) {
  RegularExpression::Matcher matcher(pattern);
  RegularExpression::Match match;
  return matcher.find(name, 0, match);
}

}  // namespace

bool is_unset(const Json* json) {
  return json == nullptr || json->is_null() || (json->is_boolean() && !json->boolean("")) ||
         (json->is_list() && json->list("").empty()) ||
         (json->is_object() && json->object("").empty());
}

PeftRanks::PeftRanks(const Json& config, const std::string& path) : path_(path) {
  const auto find = [&](const char* key) -> const Json& {
    const Json* const json = config.find(key);
    if (json == nullptr) {
      throw InputError(where(key) + ": is not there");
    }
    return *json;
  };
  rank_ = positive(find("r"), "r");
  alpha_ = find("lora_alpha").real(where("lora_alpha"));
  const Json* const stabilised = config.find("use_rslora");
  stabilised_ =
      stabilised != nullptr && !stabilised->is_null() && stabilised->boolean(where("use_rslora"));
  for (auto& [pattern, value] : patterns_of(config, "rank_pattern", where("rank_pattern"))) {
    ranks_.emplace_back(std::move(pattern), positive(*value, "rank_pattern"));
  }
  for (auto& [pattern, value] : patterns_of(config, "alpha_pattern", where("alpha_pattern"))) {
    alphas_.emplace_back(std::move(pattern), value->real(where("alpha_pattern")));
  }
}

int PeftRanks::of(const std::string& projection) const {
  return value_of(ranks_, "rank_pattern", projection, rank_);
}

// Scales are quotients of two numbers, of which a pattern may give multiples: two roundings apart.
AdapterConfig PeftRanks::of_all(const std::vector<std::string>& projections) const {
  AdapterConfig adapters{.rank = rank_, .alpha = alpha_, .rank_stabilised = stabilised_};
  const double scale = scale_of(projections.front());
  int highest = 0;
  for (const std::string& projection : projections) {
    const double own = scale_of(projection);
    if (std::abs(own - scale) > 2 * std::numeric_limits<double>::epsilon() * std::abs(scale)) {
      throw InputError(
          fmt::format("{}: {} has a scale of its own, {} beside {} of {}, which is not supported",
                      path_, projection, own, scale, projections.front()));
    }
    highest = std::max(highest, of(projection));
  }
  if (highest != rank_ || adapters.scale() != scale) {
    adapters = {.rank = highest, .alpha = scale * highest};
  }
  adapters.targets = projections;
  return adapters;
}

int PeftRanks::positive(const Json& json, const char* key) const {
  const std::int64_t value = json.integer(where(key));
  if (value < 1 || value > std::numeric_limits<int>::max()) {
    throw InputError(fmt::format("{} = {}: must be positive", where(key), value));
  }
  return static_cast<int>(value);
}

double PeftRanks::scale_of(const std::string& projection) const {
  const double alpha = value_of(alphas_, "alpha_pattern", projection, alpha_);
  return AdapterConfig{.rank = of(projection), .alpha = alpha, .rank_stabilised = stabilised_}
      .scale();
}

template <class Value>
Value PeftRanks::value_of(const Patterns<Value>& patterns, const char* key,
                          const std::string& projection, Value usual) const {
  const Value* found = nullptr;
  for (const auto& [pattern, value] : patterns) {
    if (!matches(pattern, projection) && !matches(pattern, weight_of(projection))) {
      continue;
    }
    if (found != nullptr && *found != value) {
      throw InputError(
          fmt::format("{}: two patterns with other numbers match {}", where(key), projection));
    }
    found = &value;
  }
  return found == nullptr ? usual : *found;
}

}  // namespace qnext
