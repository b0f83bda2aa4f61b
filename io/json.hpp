// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace qnext {

/// How large a JSON text may be, and how deep its lists and objects may nest.
struct JsonLimits {
  std::int64_t bytes = 100'000'000;
  int depth = 32;
};

/// A JSON value, strictly as RFC 8259 says; a name that an object has twice is refused.
///
/// `where` names what is read in errors, "folder/config.json: hidden_size"; a value of another kind
/// is an InputError.
class Json {
 public:
  using List = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  // in the order of the text

  static Json parse(std::string_view text, const std::string& where, const JsonLimits& limits = {});
  static Json read(const std::string& path, const JsonLimits& limits = {});

  /// A value of one of the kinds: bool, std::int64_t, double, std::string, List, Object.
  template <class T>
  static Json of(T value) {
    Json json;
    json.value_ = std::move(value);
    return json;
  }

  bool is_null() const { return value_.index() == 0; }
  bool is_boolean() const { return std::holds_alternative<bool>(value_); }
  bool is_integer() const { return std::holds_alternative<std::int64_t>(value_); }
  bool is_text() const { return std::holds_alternative<std::string>(value_); }
  bool is_list() const { return std::holds_alternative<List>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  bool boolean(const std::string& where) const;
  std::int64_t integer(const std::string& where) const;
  double real(const std::string& where) const;  // an integer is one too
  const std::string& text(const std::string& where) const;
  const List& list(const std::string& where) const;
  const Object& object(const std::string& where) const;

  /// Of an object: the value of that name, or null.
  const Json* find(std::string_view name) const;

  /// As text, on one line.
  std::string to_string() const;

 private:
  friend class JsonBuilder;

  template <class T>
  const T& get(const std::string& where, const char* wanted) const;
  const char* kind() const;

  std::variant<std::monostate, bool, std::int64_t, double, std::string, List, Object> value_;
};

/// Bytes as a JSON string; what is no UTF-8 becomes the replacement character.
std::string json_text(std::string_view bytes);

}  // namespace qnext
