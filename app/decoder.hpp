// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/activations.hpp"
#include "app/decoder_batch.hpp"
#include "app/stage_messages.hpp"
#include "core/arena.hpp"
#include "layers/model.hpp"
#include "parallel/process_grid.hpp"

#include <vector>

namespace qnext {

/// What a decoder has room for.
struct DecoderLimits {
  int documents = 1;   // at the same time
  int capacity = 0;    // tokens of the longest
  int piece = 0;       // tokens of a document that are read at once
  int drafts = 0;      // tokens of a document that are drafted at once
  bool marks = false;  // documents can go back to a place
};

/// Documents that grow: their recurrent states and their keys and values, in slots that other
/// documents take when they end.
///
/// Tensor ranks and the stages of a pipeline work on the same documents and make every call
/// together; data ranks have documents of their own. A group of expert ranks makes the same number
/// of passes, a pass without documents where one of them has none. What a document gets does not
/// depend, in any bit, on the documents beside it.
///
/// Drafts. The MTP module's cache and the recurrent states go no further than what is accepted:
///
///     trunk   x_0 ... x_{L-1}                 its hidden states h; x_L is drawn, but not read
///     module  x_1 ... x_{M}, h_0 ... h_{M-1}  M <= L
///     draft   reads x_{M+1} ... x_L with h_M ... h_{L-1}, then its own outputs: d_1 ... d_n
///     check   the trunk reads x_L d_1 ... d_n and keeps the state behind each
///     accept  L grows by the tokens that stay; the state behind the last of them is that of the
///             document, and what the caches hold behind it is overwritten
///
/// A slot has one row for each state that is kept. Nothing is copied to go back. Where documents
/// can be marked it has twice as many: what comes behind a mark goes to the half without the state
/// there.
template <class Storage>
class Decoder {
 public:
  /// Logits (V) behind each of some tokens, on the rank that speaks for the others: the first
  /// tensor rank of the last stage. Empty on the others.
  using Logits = std::vector<std::vector<double>>;

  /// Tokens of a document.
  struct Next {
    int slot;
    std::vector<int> tokens;
  };

  /// By all ranks. With drafts the model has an MTP module.
  Decoder(const Model<Storage>& model, const ProcessGrid& grid, const DecoderLimits& limits);

  /// How many tokens may step together, of all documents.
  static int most_tokens();

  /// An empty document in a slot.
  void begin(int slot);

  /// A forward pass over the next tokens of the document in a slot, at most a piece of them: the
  /// logits behind the last. `behind` is the token that follows them, if it is known. Without
  /// tokens, the pass of a rank that has none.
  Logits read(int slot, const std::vector<int>& tokens, int behind = -1);

  /// A step of the next token of each of these documents: the logits behind it.
  Logits step(const std::vector<Next>& next);

  /// How many tokens the MTP module has not seen of those behind what the trunk read: M + 1 ... L.
  int unseen(int slot) const { return slots_[slot].unseen; }

  /// The logits of d_1 behind these tokens, all that were unseen of each document.
  Logits draft(const std::vector<Next>& next);
  /// Those of the next draft behind the last one of each of the same documents, the `number`-th.
  Logits draft_more(const std::vector<Next>& next, int number);

  /// The next token of each document and its drafts: the logits behind all of them.
  Logits check(const std::vector<Next>& next);
  /// So many of the tokens of the last check stay.
  void accept(int slot, int tokens);

  int length(int slot) const { return slots_[slot].length; }

  /// The document can go back to here, until it is marked again. Its next token is known, and given
  /// to the MTP module.
  void mark(int slot);
  /// The document ends where it was marked.
  void go_back(int slot);

 private:
  using Memory = ActivationMemory<Storage>;
  using Real = Accum<Storage>;

  struct Slot {
    int length = 0;
    int state = 0;   // row of the recurrent states
    int unseen = 0;  // hidden states that the MTP module has not seen
    int first = 0;   // of the rows that the next states go to
    int marked_length = 0;
    int marked_state = 0;
  };

  /// Memory of the MTP module for one shape after the other.
  class DraftMemory {
   public:
    DraftMemory(const Model<Storage>& model, const MicrobatchShape& largest);
    typename Model<Storage>::Draft& get(const MicrobatchShape& shape);

   private:
    static std::int64_t bytes_of(const Model<Storage>& model, const MicrobatchShape& shape);

    const Model<Storage>& model_;
    Arena arena_;
    typename Model<Storage>::Draft draft_;
    MicrobatchShape shape_;
  };

  int kept() const { return limits_.drafts + 1; }
  bool drafts_here() const { return limits_.drafts > 0 && model_.mtp() != nullptr; }
  bool last_stage() const { return grid_.place.pipeline + 1 == grid_.degrees.pipeline; }

  void pass(const Microbatch& batch, const MicrobatchShape& shape, Memory& memory, bool step,
            Keep keep);
  Logits step_tokens(const std::vector<Next>& next, Keep keep);
  void teach(const std::vector<int>& tokens, int slot, int behind, const MicrobatchShape& shape);
  Logits draft_behind(const std::vector<NextTokens>& documents, const std::vector<int>& rows,
                      const Tensor<const Storage, 2>& hidden);
  void copy_rows(const Tensor<const Storage, 2>& from, const std::vector<int>& rows,
                 const Tensor<Storage, 2>& to, const std::vector<int>& places);
  Logits logits_of(int rows);
  Logits on_host(int rows) const;
  void require_room(int slot, int tokens) const;

  const Model<Storage>& model_;
  const ProcessGrid& grid_;
  DecoderLimits limits_;
  std::vector<Slot> slots_;
  Arena state_arena_;
  typename Model<Storage>::State state_;
  Memory reading_;
  Memory stepping_;
  DraftMemory learning_;
  DraftMemory drafting_;
  StageMessages<Storage> messages_;
  DecoderBatch batch_;
  Tensor<Storage, 2> chosen_;  // (tokens of a step, D)  rows of the input of the head
  Tensor<Storage, 2> hidden_;  // (documents kept, D)  those of each slot that the module wants
  Tensor<Storage, 2> lent_;    // (tokens of a step, D)  what the module takes for them
  Tensor<Real, 1> logits_;     // tokens of a step x V: of each tensor rank (tokens, V of the rank)
  Tensor<Storage, 2> low_;     // (tokens of a step, r)  for an adapter of the head
  Exec exec_;
};

}  // namespace qnext
