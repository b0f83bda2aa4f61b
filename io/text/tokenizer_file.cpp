// SPDX-License-Identifier: Apache-2.0
#include "io/text/tokenizer_file.hpp"

#include "core/require.hpp"
#include "io/json.hpp"
#include "io/text/byte_level.hpp"
#include "io/text/utf8.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <unordered_map>
#include <unordered_set>

namespace qnext {
namespace {

// What a ByteLevel of `use_regex` splits with.
constexpr const char* byte_level_expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class Reader {
 public:
  Reader(Json root, const std::string& path) : root_(std::move(root)) { file_.path = path; }

  TokenizerFile result() {
    keys(root_, "",
         {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
          "post_processor", "decoder", "model"});
    absent(root_, "", {"truncation", "padding"});
    model();
    added_tokens();
    fill_ids();
    if (const Json* const normalizer = root_.find("normalizer")) {
      normalize(*normalizer, "normalizer");
    }
    if (const Json* const pre_tokenizer = root_.find("pre_tokenizer")) {
      pre_tokenize(*pre_tokenizer, "pre_tokenizer");
    }
    if (!byte_level_) {
      refuse("pre_tokenizer", "has no ByteLevel, which alone is supported");
    }
    byte_level_only("post_processor", true);
    byte_level_only("decoder", false);
    return std::move(file_);
  }

 private:
  std::string where(const std::string& key) const { return file_.path + ": " + key; }

  [[noreturn]] void refuse(const std::string& key, const std::string& what) const {
    throw InputError(where(key) + ": " + what);
  }

  static std::string join(const std::string& parent, std::string_view key) {
    return parent.empty() ? std::string(key) : fmt::format("{}.{}", parent, key);
  }

  void keys(const Json& json, const std::string& name,
            std::initializer_list<std::string_view> known) const {
    for (const auto& [key, value] : json.object(where(name))) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        refuse(join(name, key), "is a key that is not supported");
      }
    }
  }

  // Keys whose other values mean other tokens: null, false, 0 and "" stand for none.
  void absent(const Json& json, const std::string& name,
              std::initializer_list<std::string_view> wanted) const {
    for (const std::string_view key : wanted) {
      const Json* const value = json.find(key);
      if (value == nullptr || value->is_null()) {
        continue;
      }
      const std::string text = value->to_string();
      if (text != "false" && text != "\"\"" && text != "0" && text != "0.0") {
        refuse(join(name, key),
               fmt::format("{} is not supported, expected none", text.substr(0, 60)));
      }
    }
  }

  const Json& member(const Json& json, const std::string& name, std::string_view key) const {
    const Json* const value = json.find(key);
    if (value == nullptr) {
      refuse(join(name, key), "is missing");
    }
    return *value;
  }

  bool flag(const Json& json, const std::string& name, std::string_view key) const {
    const Json* const value = json.find(key);
    return value != nullptr && !value->is_null() && value->boolean(where(join(name, key)));
  }

  std::string type_of(const Json& json, const std::string& name) const {
    json.object(where(name));
    return member(json, name, "type").text(where(name + ".type"));
  }

  void model() {
    const Json& model = member(root_, "", "model");
    if (const std::string type = type_of(model, "model"); type != "BPE") {
      refuse("model.type", fmt::format("{} is not supported, expected BPE", type));
    }
    keys(model, "model",
         {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
          "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
    absent(model, "model",
           {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
            "byte_fallback"});
    vocabulary(member(model, "model", "vocab"), flag(model, "model", "ignore_merges"));
    merges(member(model, "model", "merges"));
  }

  void vocabulary(const Json& vocab, bool ignore_merges) {
    const auto& object = vocab.object(where("model.vocab"));
    ids_.reserve(object.size());
    for (const auto& [spelling, value] : object) {
      const std::int64_t id = value.integer(where("model.vocab: " + spelling));
      claim(id, spelling, "model.vocab");
      ids_.emplace(spelling, static_cast<int>(id));
    }
    file_.bytes.fill(-1);
    for (const auto& [spelling, id] : ids_) {
      const std::optional<std::string> bytes = bytes_of_spelling(spelling);
      if (bytes && bytes->size() == 1) {
        file_.bytes[static_cast<unsigned char>(bytes->front())] = id;
      }
      if (bytes && ignore_merges) {
        file_.whole_words.emplace(*bytes, id);
      }
    }
    for (int byte = 0; byte < 256; ++byte) {
      if (file_.bytes[byte] < 0) {
        refuse("model.vocab", fmt::format("has no token for the byte {}", byte));
      }
    }
  }

  // One merge is "left right" or ["left", "right"].
  void merges(const Json& merges) {
    const auto& list = merges.list(where("model.merges"));
    file_.merges.reserve(list.size());
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::string name = fmt::format("model.merges[{}]", i);
      std::string left, right;
      if (list[i].is_text()) {
        const std::string& text = list[i].text("");
        const std::size_t blank = text.find(' ');
        if (blank == text.npos || text.find(' ', blank + 1) != text.npos) {
          refuse(name, fmt::format("\"{}\" is not two tokens with a blank between", text));
        }
        left = text.substr(0, blank);
        right = text.substr(blank + 1);
      } else {
        const auto& pair = list[i].list(where(name));
        if (pair.size() != 2) {
          refuse(name, fmt::format("has {} tokens, expected 2", pair.size()));
        }
        left = pair[0].text(where(name));
        right = pair[1].text(where(name));
      }
      file_.merges.push_back({known(left, name), known(right, name), known(left + right, name)});
    }
  }

  int known(const std::string& spelling, const std::string& name) const {
    const auto found = ids_.find(spelling);
    if (found == ids_.end()) {
      refuse(name, fmt::format("the token \"{}\" is not in the vocabulary", spelling));
    }
    return found->second;
  }

  void claim(std::int64_t id, const std::string& spelling, const std::string& name) {
    constexpr std::int64_t most = 1 << 24;
    if (id < 0 || id >= most) {
      refuse(name, fmt::format("\"{}\" has the id {}, expected 0 to {}", spelling, id, most - 1));
    }
    const auto [other, fresh] = spellings_.emplace(static_cast<int>(id), spelling);
    if (!fresh && other->second != spelling) {
      refuse(name,
             fmt::format("\"{}\" and \"{}\" have the same id {}", other->second, spelling, id));
    }
  }

  void added_tokens() {
    const Json* const added = root_.find("added_tokens");
    if (added == nullptr || added->is_null()) {
      return;
    }
    std::unordered_set<std::string> contents;
    for (const Json& entry : added->list(where("added_tokens"))) {
      const std::string name = fmt::format("added_tokens[{}]", file_.added.size());
      keys(entry, name,
           {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
      AddedToken token;
      token.content = member(entry, name, "content").text(where(name + ".content"));
      if (token.content.empty()) {
        refuse(name + ".content", "is empty");
      }
      if (!contents.insert(token.content).second) {
        refuse(name + ".content", fmt::format("\"{}\" stands twice", token.content));
      }
      const std::int64_t id = member(entry, name, "id").integer(where(name + ".id"));
      claim(id, token.content, name);
      token.id = static_cast<int>(id);
      if (const auto other = ids_.find(token.content);
          other != ids_.end() && other->second != token.id) {
        refuse(name + ".id", fmt::format("is {}, but the vocabulary gives \"{}\" the id {}", id,
                                         token.content, other->second));
      }
      token.single_word = flag(entry, name, "single_word");
      token.lstrip = flag(entry, name, "lstrip");
      token.rstrip = flag(entry, name, "rstrip");
      token.normalized = flag(entry, name, "normalized");
      token.special = flag(entry, name, "special");
      file_.added.push_back(token);
    }
  }

  void fill_ids() {
    file_.tokens.resize(spellings_.size());
    for (const auto& [id, spelling] : spellings_) {
      if (id >= static_cast<int>(spellings_.size())) {
        refuse("model.vocab",
               fmt::format("{} tokens have ids up to {}, expected no gap", spellings_.size(), id));
      }
      file_.tokens[id] = bytes_of_spelling(spelling).value_or(spelling);
    }
  }

  void normalize(const Json& json, const std::string& name) {
    if (json.is_null()) {
      return;
    }
    const std::string type = type_of(json, name);
    if (type == "NFC") {
      keys(json, name, {"type"});
      file_.composed = true;
    } else if (type == "Sequence") {
      keys(json, name, {"type", "normalizers"});
      for (const Json& part : member(json, name, "normalizers").list(where(name))) {
        normalize(part, name + ".normalizers");
      }
    } else {
      refuse(name + ".type", fmt::format("{} is not supported, expected NFC or none", type));
    }
  }

  void pre_tokenize(const Json& json, const std::string& name) {
    if (json.is_null()) {
      return;
    }
    const std::string type = type_of(json, name);
    if (byte_level_) {
      refuse(name + ".type", fmt::format("{} behind a ByteLevel is not supported", type));
    }
    if (type == "Sequence") {
      keys(json, name, {"type", "pretokenizers"});
      for (const Json& part : member(json, name, "pretokenizers").list(where(name))) {
        pre_tokenize(part, name + ".pretokenizers");
      }
    } else if (type == "Split") {
      split(json, name);
    } else if (type == "ByteLevel") {
      keys(json, name, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
      absent(json, name, {"add_prefix_space"});
      if (json.find("use_regex") == nullptr || flag(json, name, "use_regex")) {
        file_.splits.push_back(translated_expression(byte_level_expression, where(name)));
      }
      byte_level_ = true;
    } else {
      refuse(name + ".type",
             fmt::format("{} is not supported, expected Split, ByteLevel or Sequence", type));
    }
  }

  void split(const Json& json, const std::string& name) {
    keys(json, name, {"type", "pattern", "behavior", "invert"});
    absent(json, name, {"invert"});
    const std::string behavior = member(json, name, "behavior").text(where(name + ".behavior"));
    if (behavior != "Isolated") {
      refuse(name + ".behavior", behavior + " is not supported, expected Isolated");
    }
    const Json& pattern = member(json, name, "pattern");
    keys(pattern, name + ".pattern", {"Regex", "String"});
    const bool literal = pattern.find("String") != nullptr;
    const std::string& text =
        member(pattern, name + ".pattern", literal ? "String" : "Regex").text(where(name));
    file_.splits.push_back(literal ? quoted(text)
                                   : translated_expression(text, where(name + ".pattern")));
  }

  static std::string quoted(const std::string& text) {
    std::string pattern;
    for (const char letter : text) {
      if (std::string_view("\\^$.|?*+()[]{}").find(letter) != std::string_view::npos) {
        pattern += '\\';
      }
      pattern += letter;
    }
    return pattern;
  }

  // Of the post-processor only the places of tokens depend on its keys, of the decoder nothing.
  void byte_level_only(const std::string& name, bool or_none) const {
    const Json* const json = root_.find(name);
    if (json == nullptr || json->is_null()) {
      if (!or_none) {
        refuse(name, "is missing, expected ByteLevel");
      }
      return;
    }
    if (const std::string type = type_of(*json, name); type != "ByteLevel") {
      refuse(name + ".type", fmt::format("{} is not supported, expected ByteLevel", type));
    }
  }

  Json root_;
  TokenizerFile file_;
  std::unordered_map<std::string, int> ids_;        // of the vocabulary
  std::unordered_map<int, std::string> spellings_;  // and of the added tokens
  bool byte_level_ = false;
};

}  // namespace

TokenizerFile TokenizerFile::read(const std::string& path) {
  const bool folder = std::filesystem::is_directory(path);
  const std::string file =
      folder ? (std::filesystem::path(path) / "tokenizer.json").string() : path;
  return Reader(Json::read(file), file).result();
}

TokenizerFile TokenizerFile::parse(const std::string& text, const std::string& path) {
  return Reader(Json::parse(text, path), path).result();
}

}  // namespace qnext
