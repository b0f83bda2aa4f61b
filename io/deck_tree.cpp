// SPDX-License-Identifier: Apache-2.0
#include "io/deck_tree.hpp"

#include "core/require.hpp"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <numeric>
#include <sstream>

namespace qnext {
namespace {

// Builds the tree from the parser's events rather than from YAML::Node, which forgets the line of a
// key and resolves anchors silently.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(std::string name, bool with_lines)
      : name_(std::move(name)), with_lines_(with_lines), root_(std::make_shared<DeckNode>()) {
    root_->where = name_;
  }

  std::shared_ptr<DeckNode> root() const { return root_; }
  std::string where(const YAML::Mark& mark) const {
    return with_lines_ ? fmt::format("{}:{}", name_, mark.line + 1) : name_;
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse(mark, "", anchor);
    if (expects_key()) {
      throw InputError(where(mark) + ": a key is missing before the colon");
    }
    place(mark).kind = DeckNode::Kind::null;
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw InputError(where(mark) + ": aliases (*name) are not part of a deck; write it out");
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse(mark, tag, anchor);
    if (expects_key()) {
      take_key(mark, value);
      return;
    }
    DeckNode& node = place(mark);
    node.kind = DeckNode::Kind::scalar;
    node.text = value;
    node.quoted = tag == "!";
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, DeckNode::Kind::list);
  }
  void OnSequenceEnd() override { open_.pop_back(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, DeckNode::Kind::section);
  }
  void OnMapEnd() override { open_.pop_back(); }

 private:
  bool expects_key() const {
    return !open_.empty() && open_.back()->kind == DeckNode::Kind::section && pending_ == nullptr;
  }

  void refuse(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) const {
    if (anchor != 0) {
      throw InputError(where(mark) + ": anchors (&name) are not part of a deck; write it out");
    }
    if (!tag.empty() && tag != "?" && tag != "!") {
      throw InputError(fmt::format("{}: tags ({}) are not part of a deck", where(mark), tag));
    }
  }

  void take_key(const YAML::Mark& mark, const std::string& key) {
    if (const DeckNode* twin = open_.back()->child(key)) {
      throw InputError(fmt::format("{}: {}: this key stands already at {}", where(mark), twin->path,
                                   twin->where));
    }
    pending_ = &open_.back()->add_child(key);
    pending_->where = where(mark);
  }

  DeckNode& place(const YAML::Mark& mark) {
    if (open_.empty()) {
      return *root_;
    }
    if (pending_ != nullptr) {
      return *std::exchange(pending_, nullptr);
    }
    DeckNode& item = open_.back()->add_child(std::to_string(open_.back()->children.size()));
    item.where = where(mark);
    return item;
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            DeckNode::Kind kind) {
    refuse(mark, tag, anchor);
    if (expects_key()) {
      throw InputError(where(mark) +
                       ": a key must be a word, not a list or a section; is a bracket left open?");
    }
    DeckNode& node = place(mark);
    node.kind = kind;
    open_.push_back(&node);
  }

  std::string name_;
  bool with_lines_;
  std::shared_ptr<DeckNode> root_;
  std::vector<DeckNode*> open_;
  DeckNode* pending_ = nullptr;  // has its key and waits for its value
};

void set_paths(DeckNode& node) {
  for (const auto& child : node.children) {
    child->path = node.path.empty() ? child->key : node.path + "." + child->key;
    set_paths(*child);
  }
}

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

// Full paths of everything that was looked for, below `node`.
void collect_known(const DeckNode& node, std::vector<std::string>& paths) {
  for (const std::string& name : node.asked) {
    paths.push_back(node.path.empty() ? name : node.path + "." + name);
  }
  for (const auto& child : node.children) {
    collect_known(*child, paths);
  }
}

std::string advice(const DeckNode& section, const DeckNode& unread,
                   const std::vector<std::string>& known_paths) {
  const std::vector<std::string> names(section.asked.begin(), section.asked.end());
  if (const std::string near = nearest_name(unread.key, names); !near.empty()) {
    return "; did you mean " + near + "?";
  }
  for (const std::string& path : known_paths) {
    if (path.size() > unread.key.size() && path.ends_with("." + unread.key)) {
      return "; did you mean " + path + "?";
    }
  }
  return names.empty() ? "" : fmt::format("; known here: {}", fmt::join(names, ", "));
}

void collect_unread(const DeckNode& node, const std::vector<std::string>& known_paths,
                    std::vector<std::string>& lines) {
  for (const auto& child : node.children) {
    if (!child->read) {
      lines.push_back(fmt::format("{}: {}: nothing reads this key{}", child->where, child->path,
                                  advice(node, *child, known_paths)));
    } else {
      collect_unread(*child, known_paths, lines);
    }
  }
}

// Double quotes take every string; without them stands only what no YAML reader could mistake.
std::string yaml_word(const std::string& text, bool quoted_before) {
  const auto harmless = [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '.' || c == '/' || c == '-' || c == '+';
  };
  const bool null_word = text == "null" || text == "Null" || text == "NULL";
  if (!quoted_before && !null_word && !text.empty() && text[0] != '-' &&
      std::all_of(text.begin(), text.end(), harmless)) {
    return text;
  }
  double number = 0.0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (!quoted_before && parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) {
    return text;  // a negative number
  }
  std::string quoted = "\"";
  for (const unsigned char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
    }
    quoted += c < 0x20 ? fmt::format("\\x{:02x}", c) : std::string(1, static_cast<char>(c));
  }
  return quoted + "\"";
}

std::string yaml_scalar(const DeckNode& node) {
  return yaml_word(node.text, node.quoted);
}

bool anything_read(const DeckNode& node) {
  return std::any_of(node.children.begin(), node.children.end(),
                     [](const auto& child) { return child->read; });
}

bool is_plain_list(const DeckNode& node) {
  return std::all_of(node.children.begin(), node.children.end(),
                     [](const auto& item) { return item->kind == DeckNode::Kind::scalar; });
}

void write_value(const DeckNode& node, int indent, std::string& out);

// The keys of a section; the first of them continues the line that "- " began.
void write_section(const DeckNode& node, int indent, bool continues, std::string& out) {
  for (const auto& child : node.children) {
    if (!child->read) {
      continue;
    }
    out += fmt::format("{:{}}{}:", "", continues ? 0 : indent, yaml_word(child->key, false));
    write_value(*child, indent + 2, out);
    continues = false;
  }
}

void write_list(const DeckNode& node, int indent, std::string& out) {
  for (const auto& item : node.children) {
    out += fmt::format("{:{}}- ", "", indent);
    if (anything_read(*item)) {
      write_section(*item, indent + 2, true, out);
    } else {
      out += "{}\n";  // sections() and get() leave no other list behind that is not plain
    }
  }
}

// What follows "key:", with the end of the line.
void write_value(const DeckNode& node, int indent, std::string& out) {
  if (node.kind == DeckNode::Kind::null) {
    out += "\n";
  } else if (node.kind == DeckNode::Kind::scalar) {
    out += " " + yaml_scalar(node) + "\n";
  } else if (node.kind == DeckNode::Kind::list && is_plain_list(node)) {
    out += " [";
    for (const auto& item : node.children) {
      out += (item == node.children.front() ? "" : ", ") + yaml_scalar(*item);
    }
    out += "]\n";
  } else if (node.kind == DeckNode::Kind::list) {
    out += "\n";
    write_list(node, indent, out);
  } else if (!anything_read(node)) {
    out += " {}\n";
  } else {
    out += "\n";
    write_section(node, indent, false, out);
  }
}

std::string flow_of(const DeckNode& node) {
  if (node.kind == DeckNode::Kind::null || node.kind == DeckNode::Kind::scalar) {
    return node.text;
  }
  std::vector<std::string> items;
  for (const auto& child : node.children) {
    const std::string value = flow_of(*child);
    items.push_back(node.kind == DeckNode::Kind::list ? value : child->key + ": " + value);
  }
  const bool list = node.kind == DeckNode::Kind::list;
  return fmt::format("{}{}{}", list ? '[' : '{', fmt::join(items, ", "), list ? ']' : '}');
}

}  // namespace

DeckNode* DeckNode::child(std::string_view name) const {
  for (const auto& node : children) {
    if (node->key == name) {
      return node.get();
    }
  }
  return nullptr;
}

DeckNode& DeckNode::add_child(std::string name) {
  children.push_back(std::make_unique<DeckNode>());
  DeckNode& node = *children.back();
  node.path = path.empty() ? name : path + "." + name;
  node.key = std::move(name);
  return node;
}

std::shared_ptr<DeckNode> parse_deck(const std::string& text, const std::string& name,
                                     bool with_lines) {
  TreeBuilder builder(name, with_lines);
  std::istringstream stream(text);
  try {
    YAML::Parser parser(stream);
    if (parser.HandleNextDocument(builder) && parser.HandleNextDocument(builder)) {
      throw InputError(name + ": holds more than one YAML document (---)");
    }
  } catch (const YAML::Exception& error) {
    throw InputError(fmt::format("{}: not YAML: {}", builder.where(error.mark), error.msg));
  }
  set_paths(*builder.root());
  return builder.root();
}

void apply_override(DeckNode& root, const std::string& override_text) {
  const auto equals = override_text.find('=');
  const std::string path = override_text.substr(0, equals);
  if (equals == std::string::npos || path.empty() || path.front() == '.' || path.back() == '.' ||
      path.find("..") != std::string::npos) {
    throw InputError(
        fmt::format("override: {}: must be key=value, for example run.steps=10", override_text));
  }
  DeckNode* node = &root;
  std::istringstream names(path);
  for (std::string name; std::getline(names, name, '.');) {
    DeckNode* next = node->child(name);
    if (next == nullptr && node->kind == DeckNode::Kind::list) {
      throw InputError(fmt::format("override: {}: {} has the items 0 to {}", path, node->path,
                                   static_cast<int>(node->children.size()) - 1));
    }
    if (next == nullptr) {
      if (node->kind != DeckNode::Kind::section) {
        node->kind = DeckNode::Kind::section;  // a number gives way to the form with keys
        node->where = "override";
      }
      next = &node->add_child(name);
      next->where = "override";
    }
    node = next;
  }
  const auto value = parse_deck(override_text.substr(equals + 1), "override", false);
  node->where = "override";
  node->kind = value->kind;
  node->text = value->text;
  node->quoted = value->quoted;
  node->children = std::move(value->children);
  set_paths(*node);
}

std::string summary_of(const DeckNode& node) {
  constexpr std::size_t longest = 60;
  const std::string text = flow_of(node);
  return text.size() <= longest ? text : text.substr(0, longest - 3) + "...";
}

std::string yaml_of(const DeckNode& root) {
  std::string out;
  write_section(root, 0, false, out);
  return out;
}

std::vector<std::string> unread_keys(const DeckNode& root) {
  std::vector<std::string> known_paths, lines;
  collect_known(root, known_paths);
  collect_unread(root, known_paths, lines);
  return lines;
}

std::string nearest_name(std::string_view wanted, const std::vector<std::string>& names) {
  std::string nearest;
  int least = std::max<int>(2, static_cast<int>(wanted.size()) / 3) + 1;
  for (const std::string& name : names) {
    const int distance = edit_distance(wanted, name);
    if (distance < least && distance < static_cast<int>(std::min(wanted.size(), name.size()))) {
      least = distance;
      nearest = name;
    }
  }
  return nearest;
}

}  // namespace qnext
