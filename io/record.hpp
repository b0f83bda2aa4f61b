// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/require.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace qnext {

/// What stands in a checkpoint beside tensors: a counter, a measure, a text, a small array.
using RecordValue =
    std::variant<std::int64_t, double, std::string, std::vector<std::int64_t>, std::vector<double>>;

/// Values by name. Who puts them in a checkpoint knows the names; the checkpoint does not.
class Record {
 public:
  explicit Record(std::string name = "record") : name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  const std::map<std::string, RecordValue>& values() const { return values_; }

  bool has(const std::string& value) const { return values_.count(value) > 0; }
  void set(const std::string& value, RecordValue content) {
    values_.insert_or_assign(value, std::move(content));
  }

  /// T is one of the types of RecordValue.
  template <class T>
  const T& get(const std::string& value) const {
    const auto it = values_.find(value);
    if (it == values_.end()) {
      throw InputError(name_ + "." + value + ": the checkpoint has no such value");
    }
    const T* const content = std::get_if<T>(&it->second);
    if (content == nullptr) {
      throw InputError(name_ + "." + value + ": the checkpoint holds it as another type");
    }
    return *content;
  }

  /// One line for each value that differs: "threads: 2 there, 4 here".
  std::vector<std::string> differences(const Record& here) const;

 private:
  std::string name_;
  std::map<std::string, RecordValue> values_;
};

/// A value as a message shows it.
std::string to_string(const RecordValue& value);

}  // namespace qnext
