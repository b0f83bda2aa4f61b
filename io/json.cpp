// SPDX-License-Identifier: Apache-2.0
#include "io/json.hpp"

#include "core/require.hpp"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <unordered_set>

namespace qnext {

/// Builds the value from the events of the parser, which keeps no tree of its own.
class JsonBuilder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonBuilder(std::string where, int depth) : where_(std::move(where)), depth_(depth) {}

  Json take() { return std::move(root_); }

  bool null() override { return place(std::monostate{}); }
  bool boolean(bool value) override { return place(value); }
  bool number_integer(number_integer_t value) override { return place(std::int64_t{value}); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max())) {
      throw InputError(where_ + ": the integer " + std::to_string(value) +
                       " does not fit into 64 bits");
    }
    return place(static_cast<std::int64_t>(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return place(value); }
  bool string(string_t& value) override { return place(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(Json::Object{}); }
  bool key(string_t& name) override {
    if (!open_.back().names.insert(name).second) {
      throw InputError(where_ + ": \"" + name + "\" stands twice in one object");
    }
    name_ = std::move(name);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(Json::List{}); }
  bool end_array() override { return close(); }

  bool parse_error(std::size_t byte, const std::string&,
                   const nlohmann::json::exception& error) override {
    throw InputError(where_ + ": byte " + std::to_string(byte) + ": is not JSON: " + error.what());
  }

 private:
  /// A list or an object whose end has not come. It alone grows, so that the address stays.
  struct Open {
    Json* value;
    std::unordered_set<std::string> names;
  };

  Json* add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back().value;
    if (auto* const list = std::get_if<Json::List>(&parent.value_)) {
      return &list->emplace_back(std::move(value));
    }
    auto& object = std::get<Json::Object>(parent.value_);
    return &object.emplace_back(std::move(name_), std::move(value)).second;
  }

  template <class T>
  static Json make(T value) {
    Json json;
    json.value_ = std::move(value);
    return json;
  }
  bool place(Json value) {
    add(std::move(value));
    return true;
  }
  template <class T>
  bool place(T value) {
    return place(make(std::move(value)));
  }
  template <class T>
  bool open(T container) {
    if (static_cast<int>(open_.size()) == depth_) {
      throw InputError(where_ + ": nests deeper than " + std::to_string(depth_) + " levels");
    }
    open_.push_back({add(make(std::move(container))), {}});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string where_;
  int depth_;
  Json root_;
  std::vector<Open> open_;
  std::string name_;
};

Json Json::parse(std::string_view text, const std::string& where, const JsonLimits& limits) {
  const auto bytes = static_cast<std::int64_t>(text.size());
  if (bytes > limits.bytes) {
    throw InputError(where + ": has " + std::to_string(bytes) + " bytes, at most " +
                     std::to_string(limits.bytes) + " are read");
  }
  JsonBuilder builder(where, limits.depth);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

Json Json::read(const std::string& path, const JsonLimits& limits) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  std::ifstream in(path, std::ios::binary);
  if (error || !in) {
    throw InputError(path + ": cannot be read: " + (error ? error.message() : "no permission"));
  }
  if (static_cast<std::int64_t>(bytes) > limits.bytes) {
    throw InputError(path + ": has " + std::to_string(bytes) + " bytes, at most " +
                     std::to_string(limits.bytes) + " are read");
  }
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  return parse(text, path, limits);
}

const char* Json::kind() const {
  constexpr const char* kinds[] = {"null", "a boolean", "an integer", "a number",
                                   "text", "a list",    "an object"};
  return kinds[value_.index()];
}

template <class T>
const T& Json::get(const std::string& where, const char* wanted) const {
  const T* const value = std::get_if<T>(&value_);
  if (value == nullptr) {
    throw InputError(where + " = " + to_string().substr(0, 60) + ": is " + kind() + ", wanted is " +
                     wanted);
  }
  return *value;
}

bool Json::boolean(const std::string& where) const {
  return get<bool>(where, "a boolean");
}
std::int64_t Json::integer(const std::string& where) const {
  return get<std::int64_t>(where, "an integer");
}
double Json::real(const std::string& where) const {
  return is_integer() ? static_cast<double>(integer(where)) : get<double>(where, "a number");
}
const std::string& Json::text(const std::string& where) const {
  return get<std::string>(where, "text");
}
const Json::List& Json::list(const std::string& where) const {
  return get<List>(where, "a list");
}
const Json::Object& Json::object(const std::string& where) const {
  return get<Object>(where, "an object");
}

const Json* Json::find(std::string_view name) const {
  if (const auto* const object = std::get_if<Object>(&value_)) {
    for (const auto& [key, value] : *object) {
      if (key == name) {
        return &value;
      }
    }
  }
  return nullptr;
}

std::string Json::to_string() const {
  struct Print {
    nlohmann::ordered_json operator()(const std::monostate&) const { return nullptr; }
    nlohmann::ordered_json operator()(const List& list) const {
      auto json = nlohmann::ordered_json::array();
      for (const Json& item : list) {
        json.push_back(std::visit(*this, item.value_));
      }
      return json;
    }
    nlohmann::ordered_json operator()(const Object& object) const {
      auto json = nlohmann::ordered_json::object();
      for (const auto& [name, item] : object) {
        json[name] = std::visit(*this, item.value_);
      }
      return json;
    }
    nlohmann::ordered_json operator()(bool value) const { return value; }
    nlohmann::ordered_json operator()(std::int64_t value) const { return value; }
    nlohmann::ordered_json operator()(double value) const { return value; }
    nlohmann::ordered_json operator()(const std::string& value) const { return value; }
  };
  return std::visit(Print{}, value_).dump();
}

std::string json_text(std::string_view bytes) {
  return nlohmann::json(bytes).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace qnext
