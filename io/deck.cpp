// SPDX-License-Identifier: Apache-2.0
#include "io/deck.hpp"

#include "core/require.hpp"
#include "io/deck_tree.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <type_traits>

namespace qnext {
namespace {

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

[[noreturn]] void refuse(const DeckNode& node, std::string_view reason) {
  throw InputError(fmt::format("{}: {} = {}{}: {}", node.where, node.path, summary_of(node),
                               node.is_default ? " (default)" : "", reason));
}

template <class T>
bool parse_whole(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end;
}

template <class T>
T convert(const DeckNode& node);

template <class T>
T convert_integer(const DeckNode& node) {
  T value = 0;
  if (node.quoted || !parse_whole(node.text, value)) {
    refuse(node, fmt::format("expected an integer from {} to {}", std::numeric_limits<T>::min(),
                             std::numeric_limits<T>::max()));
  }
  return value;
}

template <class T>
T convert_scalar(const DeckNode& node) {
  if (node.kind == DeckNode::Kind::null) {
    refuse(node, "has no value");
  }
  if (node.kind != DeckNode::Kind::scalar) {
    refuse(node, fmt::format("expected a single value, found a {}",
                             node.kind == DeckNode::Kind::list ? "list" : "section"));
  }
  if constexpr (std::is_same_v<T, bool>) {
    if (node.quoted || (node.text != "true" && node.text != "false")) {
      refuse(node, "expected true or false");
    }
    return node.text == "true";
  } else if constexpr (std::is_integral_v<T>) {
    return convert_integer<T>(node);
  } else if constexpr (std::is_floating_point_v<T>) {
    T value = 0;
    if (node.quoted || !parse_whole(node.text, value) || !std::isfinite(value)) {
      refuse(node, "expected a finite number");
    }
    return value;
  } else {
    return node.text;
  }
}

template <class T>
T convert_list(DeckNode& node) {
  if (node.kind != DeckNode::Kind::list) {
    refuse(node, "expected a list: [first, second]");
  }
  T values;
  for (const auto& item : node.children) {
    item->read = true;
    values.push_back(convert_scalar<typename T::value_type>(*item));
  }
  return values;
}

template <class T>
std::string text_of(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return value;
  } else {
    return fmt::format("{}", value);
  }
}

template <class T>
void fill_default(DeckNode& node, const T& value) {
  if constexpr (IsVector<T>::value) {
    node.kind = DeckNode::Kind::list;
    for (const auto& element : value) {
      DeckNode& item = node.add_child(std::to_string(node.children.size()));
      item.where = node.where;
      item.read = item.is_default = true;
      fill_default(item, element);
    }
  } else {
    node.kind = DeckNode::Kind::scalar;
    node.text = text_of(value);
  }
}

}  // namespace

DeckNode* Section::find(std::string_view key) const {
  node_->asked.emplace(key);
  return node_->child(key);
}

DeckNode& Section::required(std::string_view key) const {
  if (DeckNode* node = find(key)) {
    node->read = true;
    return *node;
  }
  std::vector<std::string> unread;
  for (const auto& child : node_->children) {
    if (!child->read) {
      unread.push_back(child->key);
    }
  }
  const std::string path =
      node_->path.empty() ? std::string(key) : fmt::format("{}.{}", node_->path, key);
  const std::string near = nearest_name(key, unread);
  throw InputError(fmt::format("{}: {}: this key is required{}", node_->where, path,
                               near.empty() ? ""
                                            : fmt::format("; is {} at {} meant to be it?", near,
                                                          node_->child(near)->where)));
}

template <class T>
T Section::get(std::string_view key) const {
  DeckNode& node = required(key);
  if constexpr (IsVector<T>::value) {
    return convert_list<T>(node);
  } else {
    return convert_scalar<T>(node);
  }
}

template <class T>
T Section::get(std::string_view key, const T& fallback) const {
  if (find(key) == nullptr) {
    DeckNode& node = node_->add_child(std::string(key));
    node.where = tree_->where;
    node.is_default = node.read = true;
    fill_default(node, fallback);
  }
  return get<T>(key);
}

std::string Section::get(std::string_view key, const char* fallback) const {
  return get<std::string>(key, std::string(fallback));
}

std::size_t Section::word(std::string_view key, const std::vector<std::string_view>& words,
                          const std::string_view* fallback) const {
  const std::string found =
      fallback == nullptr ? get<std::string>(key) : get<std::string>(key, std::string(*fallback));
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == found) {
      return i;
    }
  }
  fail(key, fmt::format("expected {}", fmt::join(words, " | ")));
}

Section Section::section(std::string_view key) const {
  DeckNode* node = find(key);
  if (node == nullptr) {
    node = &node_->add_child(std::string(key));
    node->where = tree_->where;
    node->is_default = true;
    node->kind = DeckNode::Kind::section;
  }
  node->read = true;
  if (node->kind == DeckNode::Kind::null) {
    node->kind = DeckNode::Kind::section;  // `optimizer:` with nothing below it
  }
  if (node->kind != DeckNode::Kind::section) {
    refuse(*node, "expected a section with keys of its own");
  }
  return Section(tree_, *node);
}

Section Section::section(std::string_view key, std::string_view first) const {
  DeckNode* const node = find(key);
  if (node != nullptr && node->kind == DeckNode::Kind::scalar) {
    DeckNode& word = node->add_child(std::string(first));
    word.where = node->where;
    word.kind = DeckNode::Kind::scalar;
    word.text = std::move(node->text);
    word.quoted = node->quoted;
    node->kind = DeckNode::Kind::section;
  }
  return section(key);
}

std::vector<Section> Section::sections(std::string_view key) const {
  DeckNode* node = find(key);
  std::vector<Section> all;
  if (node == nullptr) {
    return all;
  }
  node->read = true;
  if (node->kind != DeckNode::Kind::list) {
    refuse(*node, "expected a list of sections: [{first: 1}, {first: 2}]");
  }
  for (const auto& item : node->children) {
    item->read = true;
    if (item->kind != DeckNode::Kind::section) {
      refuse(*item, "expected a section with keys of its own");
    }
    all.push_back(Section(tree_, *item));
  }
  return all;
}

bool Section::has(std::string_view key) const {
  return find(key) != nullptr;
}

bool Section::is_section(std::string_view key) const {
  const DeckNode* node = find(key);
  return node != nullptr && node->kind == DeckNode::Kind::section;
}

bool Section::is_list(std::string_view key) const {
  const DeckNode* node = find(key);
  return node != nullptr && node->kind == DeckNode::Kind::list;
}

std::vector<std::string> Section::keys() const {
  std::vector<std::string> names;
  for (const auto& child : node_->children) {
    names.push_back(child->key);
  }
  return names;
}

void Section::check(bool condition, std::string_view key, std::string_view reason) const {
  if (!condition) {
    fail(key, reason);
  }
}

void Section::fail(std::string_view key, std::string_view reason) const {
  if (const DeckNode* node = find(key)) {
    refuse(*node, reason);
  }
  throw InputError(fmt::format("{}: {}{}{}: {}", node_->where, node_->path,
                               node_->path.empty() ? "" : ".", key, reason));
}

Deck Deck::read(const std::string& path, const std::vector<std::string>& overrides) {
  if (std::filesystem::is_directory(path)) {
    throw InputError(path + ": is a folder, expected a deck (a YAML file)");
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) {
    text << file.rdbuf();
  }
  if (!file || file.bad()) {
    throw InputError(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  }
  return parse(text.str(), path, overrides);
}

Deck Deck::parse(const std::string& text, const std::string& name,
                 const std::vector<std::string>& overrides) {
  const std::shared_ptr<DeckNode> tree = parse_deck(text, name, true);
  if (tree->kind == DeckNode::Kind::null) {
    throw InputError(name + ": is empty, expected a deck (sections run, model, data, ...)");
  }
  if (tree->kind != DeckNode::Kind::section) {
    throw InputError(fmt::format("{}: expected a deck (sections run, model, data, ...), found {}",
                                 name, summary_of(*tree)));
  }
  for (const std::string& override_text : overrides) {
    apply_override(*tree, override_text);
  }
  return Deck(text, tree);
}

Section Deck::root() const {
  return Section(tree_, *tree_);
}

void Deck::refuse_unread() const {
  const std::vector<std::string> lines = unread_keys(*tree_);
  if (!lines.empty()) {
    throw InputError(fmt::format("{}", fmt::join(lines, "\n")));
  }
}

std::string Deck::resolved() const {
  return yaml_of(*tree_);
}

#define QNEXT_DECK_TYPE(...)                                              \
  template __VA_ARGS__ Section::get<__VA_ARGS__>(std::string_view) const; \
  template __VA_ARGS__ Section::get<__VA_ARGS__>(std::string_view, const __VA_ARGS__&) const;
QNEXT_DECK_TYPE(bool)
QNEXT_DECK_TYPE(int)
QNEXT_DECK_TYPE(std::int64_t)
QNEXT_DECK_TYPE(std::uint64_t)
QNEXT_DECK_TYPE(double)
QNEXT_DECK_TYPE(std::string)
QNEXT_DECK_TYPE(std::vector<int>)
QNEXT_DECK_TYPE(std::vector<std::int64_t>)
QNEXT_DECK_TYPE(std::vector<std::uint64_t>)
QNEXT_DECK_TYPE(std::vector<double>)
QNEXT_DECK_TYPE(std::vector<std::string>)
#undef QNEXT_DECK_TYPE

}  // namespace qnext
