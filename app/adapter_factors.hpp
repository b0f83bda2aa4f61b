// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace qnext {

/// The factors A and B of all adapters of a model, in double: eight bytes for each number of them,
/// whatever the model is.
class AdapterFactors {
 public:
  /// `table` need not be laid out.
  AdapterFactors(const std::string& checkpoint, const ParameterTable& table);

  /// By the names of their rows.
  AdapterFactors(const AdapterConfig& config, std::map<std::string, std::vector<double>> factors)
      : config_(config), factors_(std::move(factors)) {}

  bool empty() const { return factors_.empty(); }

  /// Of a row of an adapter.
  const std::vector<double>& of(const Parameter& row) const { return factors_.at(row.name); }

  /// Whether a weight has an adapter, and so is another one when they are merged.
  bool beside(const Parameter& weight) const;

  /// numbers += scale B A, of the elements of a weight from `first` on.
  void add(const Parameter& weight, std::int64_t first, std::span<double> numbers) const;

 private:
  AdapterConfig config_;
  std::map<std::string, std::vector<double>> factors_;
};

}  // namespace qnext
