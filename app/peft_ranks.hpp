// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/adapter_config.hpp"
#include "io/json.hpp"
#include "io/text/regular_expression.hpp"

#include <string>
#include <utility>
#include <vector>

namespace qnext {

/// A key of PEFT that asks for nothing: absent, null, false or empty.
bool is_unset(const Json* json);

/// The ranks and scales that an adapter_config.json gives to projections: `r` and `lora_alpha`, or
/// what `rank_pattern` and `alpha_pattern` say of names. PEFT writes patterns itself where it makes
/// one adapter of rank 2 r of two beside gate and up.
class PeftRanks {
 public:
  /// `path` names the config in errors. What is absent, of another type or no rank is refused.
  PeftRanks(const Json& config, const std::string& path);

  /// "model.layers.3.self_attn.q_proj". Patterns that disagree are refused.
  int of(const std::string& projection) const;

  /// One config for adapters beside all of these, of their highest rank: with zeros behind its
  /// factors an adapter is one of a higher rank too. Another scale for some of them is refused.
  AdapterConfig of_all(const std::vector<std::string>& projections) const;

 private:
  template <class Value>
  using Patterns = std::vector<std::pair<RegularExpression, Value>>;

  std::string where(const char* key) const { return path_ + ": " + key; }
  int positive(const Json& json, const char* key) const;
  double scale_of(const std::string& projection) const;

  template <class Value>
  Value value_of(const Patterns<Value>& patterns, const char* key, const std::string& projection,
                 Value usual) const;

  std::string path_;
  int rank_ = 0;
  double alpha_ = 0.0;
  bool stabilised_ = false;
  Patterns<int> ranks_;
  Patterns<double> alphas_;
};

}  // namespace qnext
