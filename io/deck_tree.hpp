// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace qnext {

/// One key of a deck with what stands behind it. Children are owned by pointer, so that a Section
/// stays valid while defaults are added.
struct DeckNode {
  enum class Kind { null, scalar, list, section };

  std::string key;    // its own name, or the index in a list
  std::string path;   // "model.experts.count"; empty for the root
  std::string where;  // "inputs/tiny.yaml:42", "override", or the file for a default
  Kind kind = Kind::null;
  std::string text;     // of a scalar
  bool quoted = false;  // was written as a string
  bool is_default = false;
  bool read = false;
  std::set<std::string, std::less<>> asked;  // names that were looked for in this section
  std::vector<std::unique_ptr<DeckNode>> children;

  DeckNode* child(std::string_view name) const;
  DeckNode& add_child(std::string name);
};

/// Parses YAML; `where` of the nodes is `name:line`, or `name` alone when `with_lines` is false.
std::shared_ptr<DeckNode> parse_deck(const std::string& text, const std::string& name,
                                     bool with_lines);

/// Puts `key.sub=value` into the tree.
void apply_override(DeckNode& root, const std::string& override_text);

/// The value in one line, shortened: for messages.
std::string summary_of(const DeckNode& node);

/// What was read, as YAML.
std::string yaml_of(const DeckNode& root);

/// One line for each key that nothing read, with the nearest name that something did look for.
std::vector<std::string> unread_keys(const DeckNode& root);

/// Of `names` the one that `wanted` is most probably a slip of; empty if none is near.
std::string nearest_name(std::string_view wanted, const std::vector<std::string>& names);

}  // namespace qnext
