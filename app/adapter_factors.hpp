// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace qnext {

/// The factors A and B of the adapters of a model, in double. Those beside one weight are held at a
/// time, and read when another weight is asked for.
class AdapterFactors {
 public:
  /// All numbers of the factor that a row of a table is.
  using Reader = std::function<std::vector<double>(const Parameter&)>;

  /// `table`, which stays where it is, need not be laid out.
  AdapterFactors(const std::string& checkpoint, const ParameterTable& table);
  AdapterFactors(const ParameterTable& table, Reader read);

  bool empty() const { return rows_.empty(); }

  /// Whether a weight has an adapter, and so is another one when they are merged.
  bool beside(const Parameter& weight) const;

  /// numbers += scale B A, of the elements of a weight from `first` on.
  void add(const Parameter& weight, std::int64_t first, std::span<double> numbers);

 private:
  void hold(const std::string& projection);

  AdapterConfig config_;
  std::map<std::string, const Parameter*> rows_;  // of adapters, by their names
  Reader read_;
  std::string held_;  // the projection of
  std::vector<double> a_, b_;
};

}  // namespace qnext
