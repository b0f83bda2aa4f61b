// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qnext {

struct DeckNode;

/// One section of a deck: a handle that reads keys and remembers that it did. Every wrong value is
/// an InputError of the form `file:line: a.b.c = value: reason`; a key that was overridden on the
/// command line has "override" in place of file:line.
class Section {
 public:
  /// A key that the deck must have. T: bool, int, std::int64_t, std::uint64_t, double,
  /// std::string, or a std::vector of the last five.
  template <class T>
  T get(std::string_view key) const;

  /// A key that the deck may have; the default then stands in the resolved deck.
  template <class T>
  T get(std::string_view key, const T& fallback) const;
  std::string get(std::string_view key, const char* fallback) const;

  template <class Value>
  using Words = std::initializer_list<std::pair<std::string_view, Value>>;

  /// A key whose value is one of a few words: choose<Rule>("rule", {{"position", Rule::position}}).
  template <class Value>
  Value choose(std::string_view key, Words<Value> words) const;
  template <class Value>
  Value choose(std::string_view key, Words<Value> words, Value fallback) const;

  /// A part of its own; an absent one is empty, so that all its keys take their defaults.
  Section section(std::string_view key) const;
  /// The same where a word alone may stand for the section with that word behind `first`:
  /// section("parallel", "layout") takes `parallel: auto` for `parallel: {layout: auto}`.
  Section section(std::string_view key, std::string_view first) const;
  /// A list of sections: `train: [{path: a.txt}, {path: b.txt}]`. Absent: an empty list.
  std::vector<Section> sections(std::string_view key) const;

  /// For keys with several forms (a number or a section). None of the four counts as reading.
  bool has(std::string_view key) const;
  bool is_section(std::string_view key) const;
  bool is_list(std::string_view key) const;
  /// The given keys, in the order of the deck: for sections whose names are free.
  std::vector<std::string> keys() const;

  /// Refuses the value of a key: "must be a multiple of key_heads".
  void check(bool condition, std::string_view key, std::string_view reason) const;
  [[noreturn]] void fail(std::string_view key, std::string_view reason) const;

 private:
  friend class Deck;
  Section(std::shared_ptr<DeckNode> tree, DeckNode& node) : tree_(std::move(tree)), node_(&node) {}
  DeckNode* find(std::string_view key) const;
  DeckNode& required(std::string_view key) const;
  std::size_t word(std::string_view key, const std::vector<std::string_view>& words,
                   const std::string_view* fallback) const;

  std::shared_ptr<DeckNode> tree_;
  DeckNode* node_;
};

/// An input deck: YAML without anchors, tags and duplicate keys, and the overrides of the command
/// line (`model.experts.count=4`, `optimizer.betas=[0.9, 0.99]`, `data.train.0.path=a.txt`).
class Deck {
 public:
  static Deck read(const std::string& path, const std::vector<std::string>& overrides = {});
  /// The same from memory; `name` stands for the file in messages.
  static Deck parse(const std::string& text, const std::string& name,
                    const std::vector<std::string>& overrides = {});

  Section root() const;
  Section section(std::string_view key) const { return root().section(key); }

  /// Call it when everything was read: names every key that nothing asked for, and what was
  /// probably meant. Throws InputError, one line a key.
  void refuse_unread() const;

  const std::string& text() const { return text_; }  // as given, without the overrides
  /// Every key that was read, defaults included, as a deck that gives the same run.
  std::string resolved() const;

 private:
  Deck(std::string text, std::shared_ptr<DeckNode> tree)
      : text_(std::move(text)), tree_(std::move(tree)) {}

  std::string text_;
  std::shared_ptr<DeckNode> tree_;
};

template <class Value>
Value Section::choose(std::string_view key, Words<Value> words) const {
  std::vector<std::string_view> names;
  for (const auto& [name, value] : words) {
    names.push_back(name);
  }
  return (words.begin() + word(key, names, nullptr))->second;
}

template <class Value>
Value Section::choose(std::string_view key, Words<Value> words, Value fallback) const {
  std::vector<std::string_view> names;
  std::string_view fallback_name;
  for (const auto& [name, value] : words) {
    names.push_back(name);
    if (value == fallback) {
      fallback_name = name;
    }
  }
  return (words.begin() + word(key, names, &fallback_name))->second;
}

}  // namespace qnext
