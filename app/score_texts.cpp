// SPDX-License-Identifier: Apache-2.0
#include "app/evaluate.hpp"
#include "core/require.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace qnext {
namespace {

struct Pair {
  std::vector<int> tokens;  // of both
  int continuation;         // tokens at the end
  bool cut;
};

Pair encode(const ScoredText& scored, TextTokens& text, int most) {
  std::string context = scored.context;
  const std::size_t blanks = context.size() - (context.find_last_not_of(" \t\n\r") + 1);
  const std::string continuation = context.substr(context.size() - blanks) + scored.continuation;
  context.resize(context.size() - blanks);
  std::vector<int> given = text.encode(context), all = text.encode(context + continuation);
  if (given.empty()) {
    if (!text.end()) {
      throw InputError("a context is empty, and " + text.name() +
                       " has no <|endoftext|> to begin with");
    }
    given.push_back(*text.end());
    all.insert(all.begin(), *text.end());
  }
  const int count = static_cast<int>(all.size()) - static_cast<int>(given.size());
  if (count < 1 || count >= most) {
    throw InputError(fmt::format("the continuation \"{}\" has {} tokens, expected 1 to {}",
                                 scored.continuation.substr(0, 40), count, most - 1));
  }
  const bool cut = static_cast<int>(all.size()) > most;
  if (cut) {
    all.erase(all.begin(), all.end() - most);
  }
  return {all, count, cut};
}

// Where the score of a pair stands: behind all tokens of a document but the last.
struct Place {
  std::size_t document, next;
  int continuation;
  bool cut;
};

// Pairs that differ in their last token alone, as the letters of a question, share a document.
Place place(Pair pair, std::vector<ScoredTokens>& documents) {
  const int last = pair.tokens.back();
  pair.tokens.pop_back();
  if (documents.empty() || documents.back().tokens != pair.tokens) {
    documents.push_back({std::move(pair.tokens), {}});
  }
  documents.back().next.push_back(last);
  return {documents.size() - 1, documents.back().next.size() - 1, pair.continuation, pair.cut};
}

}  // namespace

std::vector<TextScore> score_texts(const EvaluationInputs& inputs,
                                   const std::vector<ScoredText>& texts) {
  constexpr std::size_t at_once = 256;
  std::vector<TextScore> results;
  for (std::size_t first = 0; first < texts.size(); first += at_once) {
    const std::size_t end = std::min(first + at_once, texts.size());
    std::vector<Place> places;
    std::vector<ScoredTokens> documents;
    for (std::size_t i = first; i < end; ++i) {
      places.push_back(place(encode(texts[i], inputs.text, inputs.model.most_tokens()), documents));
    }
    const auto scores = inputs.model.score(documents);
    for (std::size_t i = 0; i < places.size(); ++i) {
      TextScore result{.tokens = places[i].continuation,
                       .bytes = static_cast<int>(texts[first + i].continuation.size()),
                       .cut = places[i].cut};
      const auto add = [&](const TokenScore& score) {
        result.sum += score.log_probability;
        result.greedy = result.greedy && score.greedy;
      };
      const ScoresOfTokens& found = scores[places[i].document];
      std::for_each(found.tokens.end() - (places[i].continuation - 1), found.tokens.end(), add);
      add(found.next[places[i].next]);
      results.push_back(result);
    }
  }
  return results;
}

}  // namespace qnext
