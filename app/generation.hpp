// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/decoder.hpp"
#include "app/sampling.hpp"
#include "app/token_text.hpp"
#include "parallel/process_grid.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace qnext {

/// A prompt, and what is wanted behind it.
struct GenerationRequest {
  std::vector<int> prompt;
  Sampling sampling;
  int length = 0;                // tokens to write, at most
  std::vector<int> stop_tokens;  // end the text and are no part of it
  std::vector<std::string> stop_texts;
  int mark = 0;  // tokens of the prompt that the next prompt may be another text behind; 0: none
  std::vector<int> end_tokens = {};  // of the model: end the text as stop tokens do

  bool ends_with(int token) const;
};

/// Why a text ended.
enum class Ending { length, stop_token, stop_text };

struct GenerationAnswer {
  std::vector<int> tokens;  // with those that ended the text
  std::string text;
  Ending ending = Ending::length;
};

/// Writes behind prompts: several documents at a time on each group of ranks that has the whole
/// model, each of them as if it were alone.
template <class Storage>
class Generation {
 public:
  /// A piece of the text of a request that this rank hears of, as soon as it is certain.
  using Listener = std::function<void(int request, std::string_view piece)>;

  /// `limits.documents`: of one group of ranks. By all ranks, as the next.
  Generation(const Model<Storage>& model, const ProcessGrid& grid, const DecoderLimits& limits,
             const TokenText& text);

  /// Requests that are worked on at the same time: those of one call to write.
  int most_requests() const { return limits_.documents * grid_.degrees.data; }

  /// What is written behind each of the prompts. With `limits.marks` a prompt that goes on where
  /// the one before it in its place ended, or was marked, is read from there on. All ranks know all
  /// requests and get all answers; request i is worked on by data rank i mod their number, whose
  /// ranks tell of its tokens at once.
  std::vector<GenerationAnswer> write(const std::vector<GenerationRequest>& requests,
                                      const Listener& listener = {});

  /// Seconds that prompts and the tokens behind them took so far, and how many these were on the
  /// ranks of this group. The first token of a text comes with its prompt.
  struct Pace {
    double reading = 0.0;
    double writing = 0.0;
    std::int64_t read = 0;
    std::int64_t written = 0;
    std::int64_t stepped = 0;  // written without the first tokens
    std::int64_t drafted = 0;
    std::int64_t accepted = 0;  // of the drafted
  };
  const Pace& pace() const { return pace_; }

 private:
  struct Document;
  using Logits = typename Decoder<Storage>::Logits;

  using Active = std::vector<Document*>;
  using Next = typename Decoder<Storage>::Next;

  bool any(bool here) const;
  void read(std::vector<Document>& documents);
  int resume(const Document& document);
  void write_tokens(std::vector<Document>& documents);
  void step(const Active& documents);
  void draft_and_check(const Active& documents);
  void draft(const Active& documents);
  void choose(const Active& documents, Logits logits);
  void settle(const Active& documents, Logits logits);
  bool speaks() const { return group_.rank() == speaker_; }
  void tell(std::vector<int>& numbers) const;
  void append(Document& document, int token);
  std::vector<GenerationAnswer> gather(const std::vector<Document>& documents,
                                       const std::vector<GenerationRequest>& requests) const;

  const ProcessGrid& grid_;
  DecoderLimits limits_;
  Communicator group_;  // the ranks that share the model and its documents
  int speaker_;         // of the group: knows the logits
  bool coupled_;        // groups share experts and make their passes together
  const TokenText& text_;
  Decoder<Storage> decoder_;
  std::vector<std::vector<int>> histories_;  // of each slot the tokens of its last document
  std::vector<int> marks_;                   // and how many of them are in front of its mark
  Pace pace_;
  Listener listener_;
};

}  // namespace qnext
