// SPDX-License-Identifier: Apache-2.0
#include "app/generation.hpp"

#include "core/require.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

namespace qnext {
namespace {

/// Adds the time until it ends.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  ~Stopwatch() {
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// The text of tokens, and whether they end it.
GenerationAnswer answer_of(const GenerationRequest& request, const TokenText& text,
                           std::vector<int> tokens) {
  GenerationAnswer answer{std::move(tokens), {}, Ending::length};
  for (const int token : answer.tokens) {
    if (request.ends_with(token)) {
      answer.ending = Ending::stop_token;
      break;
    }
    answer.text += text.text_of(token);
  }
  const std::size_t stop = StopTexts(request.stop_texts).find(answer.text);
  if (stop != std::string::npos) {
    answer.text.resize(stop);
    answer.ending = Ending::stop_text;
  }
  return answer;
}

}  // namespace

template <class Storage>
struct Generation<Storage>::Document {
  int request;
  int slot;
  const GenerationRequest& wanted;
  std::vector<int> written = {};
  std::string text = {};
  std::size_t told = 0;  // bytes of the text that the listener has
  bool done = false;
  std::vector<int> drafts = {};                  // behind the last token
  std::vector<std::vector<double>> shares = {};  // the probabilities that each was drawn from

  // What was written, with the first of the drafts behind it.
  std::vector<int> with_drafts(std::size_t count) const {
    std::vector<int> tokens = written;
    tokens.insert(tokens.end(), drafts.begin(), drafts.begin() + count);
    return tokens;
  }

  std::vector<double> probabilities_behind(std::vector<double> logits, std::size_t count) const {
    penalise(logits, wanted.prompt, with_drafts(count), wanted.sampling);
    return probabilities(logits, wanted.sampling);
  }
};

bool GenerationRequest::ends_with(int token) const {
  return std::count(stop_tokens.begin(), stop_tokens.end(), token) > 0 ||
         std::count(end_tokens.begin(), end_tokens.end(), token) > 0;
}

template <class Storage>
Generation<Storage>::Generation(const Model<Storage>& model, const ProcessGrid& grid,
                                const DecoderLimits& limits, const TokenText& text)
    : grid_(grid),
      limits_(limits),
      group_(grid.world.split(grid.place.data).named("documents")),
      speaker_((grid.degrees.pipeline - 1) * grid.degrees.tensor),
      coupled_(grid.degrees.expert > grid.degrees.tensor),
      text_(text),
      decoder_(model, grid, limits),
      histories_(limits.documents),
      marks_(limits.documents) {
  require(grid.degrees.context == 1, "generation is not divided over context ranks");
}

template <class Storage>
bool Generation<Storage>::any(bool here) const {
  if (!coupled_) {
    return here;
  }
  std::vector<std::int64_t> flag{here ? 1 : 0};
  grid_.stage.maximum(flag);
  return flag[0] != 0;
}

template <class Storage>
std::vector<GenerationAnswer> Generation<Storage>::write(
    const std::vector<GenerationRequest>& requests, const Listener& listener) {
  const int count = static_cast<int>(requests.size());
  require(count <= most_requests(), std::to_string(count) + " requests at once, at most " +
                                        std::to_string(most_requests()) + " are worked on");
  listener_ = listener;
  std::vector<Document> documents;
  for (int i = grid_.place.data; i < count; i += grid_.degrees.data) {
    if (requests[i].length > 0) {
      documents.push_back({i, static_cast<int>(documents.size()), requests[i]});
    }
  }
  read(documents);
  write_tokens(documents);
  for (const Document& document : documents) {
    auto& history = histories_[document.slot];
    history = document.wanted.prompt;
    history.insert(history.end(), document.written.begin(), document.written.end());
  }
  return gather(documents, requests);
}

// One document after the other, in pieces that depend on its own length alone.
template <class Storage>
void Generation<Storage>::read(std::vector<Document>& documents) {
  const Stopwatch watch(pace_.reading);
  std::size_t next = 0;
  int position = -1;  // of the next piece; -1: its document has not begun
  while (any(next < documents.size())) {
    if (next == documents.size()) {
      decoder_.read(0, {});
      continue;
    }
    Document& document = documents[next];
    const auto& prompt = document.wanted.prompt;
    const int mark = document.wanted.mark;
    if (position < 0) {
      position = resume(document);
    }
    const int length = static_cast<int>(prompt.size()), border = position < mark ? mark : length;
    const int end = std::min(position + limits_.piece, border);
    const int behind = end < length ? prompt[end] : -1;
    Logits logits = decoder_.read(
        document.slot, std::vector<int>(prompt.begin() + position, prompt.begin() + end), behind);
    pace_.read += end - position;
    position = end;
    if (end == mark) {
      decoder_.mark(document.slot);
      marks_[document.slot] = mark;
    }
    if (end == length) {
      choose({&document}, std::move(logits));
      ++next;
      position = -1;
    }
  }
}

// How much of the prompt the state of its slot has seen.
template <class Storage>
int Generation<Storage>::resume(const Document& document) {
  const int slot = document.slot;
  const auto& prompt = document.wanted.prompt;
  const auto& history = histories_[slot];
  const auto begins_with = [&](int count) {
    return limits_.marks && count > 0 && count < static_cast<int>(prompt.size()) &&
           count <= static_cast<int>(history.size()) &&
           std::equal(history.begin(), history.begin() + count, prompt.begin());
  };
  const int length = decoder_.length(slot);
  if (begins_with(length)) {
    if (const int unseen = decoder_.unseen(slot); limits_.drafts > 0 && unseen > 0) {
      const auto end = prompt.begin() + length + 1;
      const std::vector<typename Decoder<Storage>::Next> next{
          {slot, std::vector<int>(end - unseen, end)}};
      decoder_.draft(next);
    }
    return length;
  }
  if (begins_with(marks_[slot])) {
    decoder_.go_back(slot);
    return marks_[slot];
  }
  decoder_.begin(slot);
  marks_[slot] = 0;
  return 0;
}

template <class Storage>
void Generation<Storage>::write_tokens(std::vector<Document>& documents) {
  const Stopwatch watch(pace_.writing);
  while (true) {
    Active active;
    for (Document& document : documents) {
      if (!document.done) {
        active.push_back(&document);
      }
    }
    if (!any(!active.empty())) {
      return;
    }
    const std::int64_t before = pace_.written;
    limits_.drafts > 0 ? draft_and_check(active) : step(active);
    pace_.stepped += pace_.written - before;
  }
}

template <class Storage>
void Generation<Storage>::step(const Active& documents) {
  std::vector<Next> next;
  for (const Document* document : documents) {
    next.push_back({document->slot, {document->written.back()}});
  }
  choose(documents, decoder_.step(next));
}

template <class Storage>
void Generation<Storage>::draft_and_check(const Active& documents) {
  for (Document* document : documents) {
    document->drafts.clear();
    document->shares.clear();
  }
  draft(documents);
  std::vector<Next> next;
  for (const Document* document : documents) {
    std::vector<int> tokens{document->written.back()};
    tokens.insert(tokens.end(), document->drafts.begin(), document->drafts.end());
    next.push_back({document->slot, tokens});
  }
  settle(documents, decoder_.check(next));
}

// Draws the drafts one after the other, each as its document's tokens are drawn.
template <class Storage>
void Generation<Storage>::draft(const Active& documents) {
  for (int number = 1; number <= limits_.drafts; ++number) {
    std::vector<Next> next;
    for (const Document* document : documents) {
      std::vector<int> tokens;
      if (number == 1) {
        const int unseen = decoder_.unseen(document->slot);
        const auto& written = document->written;
        tokens.assign(written.end() - unseen, written.end());
      } else {
        tokens = {document->drafts.back()};
      }
      next.push_back({document->slot, tokens});
    }
    const Logits logits = number == 1 ? decoder_.draft(next) : decoder_.draft_more(next, number);
    std::vector<int> drafts(documents.size());
    for (std::size_t i = 0; speaks() && i < documents.size(); ++i) {
      Document& document = *documents[i];
      const auto count = document.drafts.size();
      document.shares.push_back(document.probabilities_behind(logits[i], count));
      drafts[i] = draw(document.shares.back(), uniform_of(document.wanted.sampling, Draw::draft,
                                                          document.written.size() + count));
    }
    tell(drafts);
    for (std::size_t i = 0; i < documents.size(); ++i) {
      documents[i]->drafts.push_back(drafts[i]);
    }
  }
}

// `logits` stand behind the last token and behind each draft of every document. What is written
// are the drafts that the model would have drawn, and the token behind them.
template <class Storage>
void Generation<Storage>::settle(const Active& documents, Logits logits) {
  const std::size_t drafts = limits_.drafts;
  std::vector<int> settled;  // of each document how many drafts stay, and the token behind them
  for (std::size_t i = 0; i < documents.size(); ++i) {
    int stay = 0, token = 0;
    if (speaks()) {
      const Document& document = *documents[i];
      const Sampling& sampling = document.wanted.sampling;
      for (std::size_t k = 0; k <= drafts; ++k) {
        const auto p = document.probabilities_behind(std::move(logits[i * (drafts + 1) + k]), k);
        const std::uint64_t place = document.written.size() + k;
        if (k == drafts) {
          token = draw(p, uniform_of(sampling, Draw::token, place));
        } else if (stays(p, document.shares[k], document.drafts[k],
                         uniform_of(sampling, Draw::acceptance, place))) {
          ++stay;
        } else {
          token =
              draw(without_draft(p, document.shares[k]), uniform_of(sampling, Draw::token, place));
          break;
        }
      }
    }
    settled.push_back(stay);
    settled.push_back(token);
  }
  tell(settled);
  for (std::size_t i = 0; i < documents.size(); ++i) {
    Document& document = *documents[i];
    const int stay = settled[2 * i];
    decoder_.accept(document.slot, stay + 1);
    pace_.drafted += static_cast<std::int64_t>(drafts);
    pace_.accepted += stay;
    for (int k = 0; k < stay && !document.done; ++k) {
      append(document, document.drafts[k]);
    }
    if (!document.done) {
      append(document, settled[2 * i + 1]);
    }
  }
}

template <class Storage>
void Generation<Storage>::choose(const Active& documents, Logits logits) {
  std::vector<int> tokens(documents.size());
  for (std::size_t i = 0; speaks() && i < documents.size(); ++i) {
    const Document& document = *documents[i];
    const Sampling& sampling = document.wanted.sampling;
    penalise(logits[i], document.wanted.prompt, document.written, sampling);
    tokens[i] = sample(logits[i], sampling, document.written.size());
  }
  tell(tokens);
  for (std::size_t i = 0; i < documents.size(); ++i) {
    append(*documents[i], tokens[i]);
  }
}

// The speaker's choice is everybody's.
template <class Storage>
void Generation<Storage>::tell(std::vector<int>& numbers) const {
  if (!numbers.empty()) {
    group_.broadcast(HostTensor<int, 1>(numbers.data(), numbers.size()), speaker_);
  }
}

// The listener gets what no stop text can take back.
template <class Storage>
void Generation<Storage>::append(Document& document, int token) {
  const GenerationRequest& wanted = document.wanted;
  document.written.push_back(token);
  ++pace_.written;
  const bool stops = wanted.ends_with(token);
  if (!stops) {
    document.text += text_.text_of(token);
  }
  const StopTexts stop_texts(wanted.stop_texts);
  const std::size_t stop = stop_texts.find(document.text);
  document.done = stops || stop != std::string::npos ||
                  static_cast<int>(document.written.size()) == wanted.length;
  const std::size_t certain = stop != std::string::npos ? stop
                              : document.done           ? document.text.size()
                                                        : stop_texts.settled(document.text);
  if (listener_ && certain > document.told) {
    listener_(document.request,
              std::string_view(document.text).substr(document.told, certain - document.told));
    document.told = certain;
  }
}

template <class Storage>
std::vector<GenerationAnswer> Generation<Storage>::gather(
    const std::vector<Document>& documents, const std::vector<GenerationRequest>& requests) const {
  std::vector<int> mine;  // request, length, tokens ...
  for (const Document& document : documents) {
    mine.push_back(document.request);
    mine.push_back(static_cast<int>(document.written.size()));
    mine.insert(mine.end(), document.written.begin(), document.written.end());
  }
  const std::vector<int> all = grid_.data.all_gather(mine);
  std::vector<GenerationAnswer> answers(requests.size());
  for (auto at = all.begin(); at != all.end();) {
    const int request = *at++, length = *at++;
    answers[request] = answer_of(requests[request], text_, {at, at + length});
    at += length;
  }
  return answers;
}

template class Generation<bf16>;
template class Generation<float>;
template class Generation<double>;

}  // namespace qnext
