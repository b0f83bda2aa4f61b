// SPDX-License-Identifier: Apache-2.0
#include "io/text/tokenizer.hpp"

#include "core/require.hpp"
#include "io/text/text_decoder.hpp"
#include "io/text/tokenizer_file.hpp"
#include "io/text/unicode_normal_form.hpp"
#include "io/text/utf8.hpp"

#include <fmt/format.h>

namespace qnext {
namespace {

std::vector<AddedToken> of_kind(const TokenizerFile& file, bool normalized) {
  std::vector<AddedToken> tokens;
  std::string buffer;
  for (AddedToken token : file.added) {
    if (token.normalized == normalized) {
      if (normalized && file.composed) {
        token.content = composed_form(std::string(token.content), buffer);
      }
      tokens.push_back(token);
    }
  }
  return tokens;
}

std::vector<RegularExpression> compiled(const TokenizerFile& file) {
  std::vector<RegularExpression> splits;
  for (const std::string& pattern : file.splits) {
    splits.emplace_back(pattern, file.path + ": pre_tokenizer");
  }
  return splits;
}

}  // namespace

struct Tokenizer::Tables {
  explicit Tables(TokenizerFile read)
      : file(std::move(read)),
        merges(file.bytes, file.merges, file.path),
        splits(compiled(file)),
        raw(of_kind(file, false)),
        normalized(of_kind(file, true)),
        special(file.tokens.size(), 0) {
    for (const AddedToken& token : file.added) {
      special[token.id] = token.special ? 1 : 0;
    }
  }

  TokenizerFile file;
  MergeTable merges;
  std::vector<RegularExpression> splits;
  AddedTokens raw, normalized;
  std::vector<char> special;  // (ids)
};

Tokenizer Tokenizer::read(const std::string& path) {
  Tokenizer tokenizer;
  tokenizer.tables_ = std::make_shared<const Tables>(TokenizerFile::read(path));
  return tokenizer;
}

Tokenizer Tokenizer::parse(const std::string& text, const std::string& path) {
  Tokenizer tokenizer;
  tokenizer.tables_ = std::make_shared<const Tables>(TokenizerFile::parse(text, path));
  return tokenizer;
}

const std::string& Tokenizer::path() const {
  return tables_->file.path;
}

int Tokenizer::size() const {
  return static_cast<int>(tables_->file.tokens.size());
}

std::string_view Tokenizer::bytes(int id) const {
  return id >= 0 && id < size() ? std::string_view(tables_->file.tokens[id]) : std::string_view();
}

bool Tokenizer::is_special(int id) const {
  return id >= 0 && id < size() && tables_->special[id] != 0;
}

std::optional<int> Tokenizer::added_token(std::string_view content) const {
  for (const AddedToken& token : tables_->file.added) {
    if (token.content == content) {
      return token.id;
    }
  }
  return std::nullopt;
}

std::vector<int> Tokenizer::encode(std::string_view text) const {
  std::vector<int> ids;
  Encoder(*this).encode(text, ids);
  return ids;
}

std::string Tokenizer::decode(const std::vector<int>& ids, Special special) const {
  TextDecoder decoder(*this, special);
  std::string text;
  for (const int id : ids) {
    text += decoder.add(id);
  }
  return text + decoder.finish();
}

Encoder::Encoder(const Tokenizer& tokenizer) : tables_(tokenizer.tables_), pairs_(tables_->merges) {
  for (const RegularExpression& split : tables_->splits) {
    matchers_.emplace_back(split);
  }
}

template <class Next>
void Encoder::without_added(const AddedTokens& added, std::string_view text, std::vector<int>& ids,
                            const Next& next) {
  if (added.empty()) {
    return next(text);
  }
  std::vector<AddedTokens::Part> parts;
  added.split(text, parts);
  for (const AddedTokens::Part& part : parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      next(part.text);
    }
  }
}

void Encoder::encode(std::string_view text, std::vector<int>& ids) {
  if (const std::size_t at = first_broken_utf8(text); at < text.size()) {
    throw InputError(fmt::format("the text is not UTF-8 at byte {}", at));
  }
  without_added(tables_->raw, text, ids, [&](std::string_view raw) {
    const std::string_view normal = tables_->file.composed ? composed_form(raw, buffer_) : raw;
    without_added(tables_->normalized, normal, ids,
                  [&](std::string_view part) { split(part, 0, ids); });
  });
}

// Both the matches and what lies between them are words.
void Encoder::split(std::string_view text, std::size_t stage, std::vector<int>& ids) {
  if (stage == matchers_.size()) {
    return encode_word(text, ids);
  }
  std::size_t done = 0;
  RegularExpression::Match match;
  while (done < text.size() && matchers_[stage].find(text, done, match)) {
    if (done < match.begin) {
      split(text.substr(done, match.begin - done), stage + 1, ids);
    }
    split(text.substr(match.begin, match.end - match.begin), stage + 1, ids);
    done = match.end;
  }
  if (done < text.size()) {
    split(text.substr(done), stage + 1, ids);
  }
}

void Encoder::encode_word(std::string_view word, std::vector<int>& ids) {
  if (word.empty()) {
    return;
  }
  const bool keeps = word.size() <= WordCache::longest;
  const std::uint64_t hash = keeps ? WordCache::hash(word) : 0;
  if (keeps) {
    const auto known = cache_.find(word, hash);
    if (known.data() != nullptr) {
      ids.insert(ids.end(), known.begin(), known.end());
      return;
    }
  }
  const std::size_t begin = ids.size();
  const auto& whole = tables_->file.whole_words;
  if (const auto found = whole.empty() ? whole.end() : whole.find(std::string(word));
      found != whole.end()) {
    ids.push_back(found->second);
  } else {
    pairs_.encode(word, ids);
  }
  if (keeps) {
    cache_.add(word, hash, std::span(ids).subspan(begin));
  }
}

}  // namespace qnext
