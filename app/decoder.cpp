// SPDX-License-Identifier: Apache-2.0
#include "app/decoder.hpp"

#include "core/documents.hpp"
#include "core/matmul.hpp"
#include "core/parts.hpp"
#include "core/require.hpp"
#include "core/team.hpp"
#include "parallel/row_split.hpp"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

namespace qnext {
namespace {

int rows_of_slot(const DecoderLimits& limits) {
  return (limits.drafts + 1) * (limits.marks ? 2 : 1);
}

template <class Storage>
std::int64_t state_bytes(const Model<Storage>& model, const DecoderLimits& limits) {
  Arena measure;
  model.reserve_state(measure, limits.documents, limits.capacity, rows_of_slot(limits));
  return measure.peak();
}

MicrobatchShape shape_of_step(int tokens, int documents) {
  return {.tokens = tokens, .documents = documents, .sequences = 1, .decoding = true};
}

int tokens_of_step(const DecoderLimits& limits) {
  return limits.documents * (limits.drafts + 1);
}

// A team takes a row.
template <class Storage>
struct CopyRows {
  Tensor<const Storage, 2> from;
  Tensor<const int, 1> index;  // (2 rows)  where a row comes from, then where they go
  Tensor<Storage, 2> to;
  int rows;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int i = team.league_rank();
    const Storage* const source = &from(index(i), 0);
    Storage* const place = &to(index(rows + i), 0);
    for_each_in(team, from.extent_int(1), [&](const int d) { place[d] = source[d]; });
  }
};

template <class View>
void clear_row(const Exec& exec, const View& all, int row) {
  using Value = typename View::value_type;
  if (all.data() != nullptr) {
    const std::int64_t size = all.size() / all.extent(0);
    const Tensor<Value, 1> of_row(all.data() + row * size, size);
    Kokkos::parallel_for(
        "decoder::clear", Kokkos::RangePolicy<Exec>(exec, 0, size),
        KOKKOS_LAMBDA(const std::int64_t i) { of_row(i) = Value(0.0f); });
  }
}

template <class Storage>
Tensor<Storage, 2> first_rows(const Tensor<Storage, 2>& all, int rows) {
  return Tensor<Storage, 2>(all.data(), rows, all.extent(1));
}

std::vector<int> counted(int count) {
  std::vector<int> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

}  // namespace

template <class Storage>
Decoder<Storage>::DraftMemory::DraftMemory(const Model<Storage>& model,
                                           const MicrobatchShape& largest)
    : model_(model), arena_(bytes_of(model, largest)) {}

template <class Storage>
std::int64_t Decoder<Storage>::DraftMemory::bytes_of(const Model<Storage>& model,
                                                     const MicrobatchShape& shape) {
  Arena measure;
  if (model.mtp() != nullptr && shape.tokens > 0) {
    model.reserve_draft(measure, shape);
  }
  return measure.peak();
}

template <class Storage>
typename Model<Storage>::Draft& Decoder<Storage>::DraftMemory::get(const MicrobatchShape& shape) {
  if (shape.tokens != shape_.tokens || shape.documents != shape_.documents) {
    const Arena::Scope scope(arena_);
    draft_ = model_.reserve_draft(arena_, shape);
    shape_ = shape;
  }
  return draft_;
}

template <class Storage>
Decoder<Storage>::Decoder(const Model<Storage>& model, const ProcessGrid& grid,
                          const DecoderLimits& limits)
    : model_(model),
      grid_(grid),
      limits_(limits),
      slots_(limits.documents),
      state_arena_(state_bytes(model, limits)),
      state_(model.reserve_state(state_arena_, limits.documents, limits.capacity,
                                 rows_of_slot(limits))),
      reading_(model, {limits.piece, 1, 1}),
      stepping_(model, shape_of_step(tokens_of_step(limits), limits.documents)),
      learning_(model, {limits.drafts > 0 ? limits.piece : 0, 1, 1}),
      drafting_(model,
                shape_of_step(limits.drafts > 0 ? tokens_of_step(limits) : 0, limits.documents)),
      messages_(grid, model),
      batch_(std::max(limits.piece, 2 * tokens_of_step(limits)), limits.documents),
      chosen_("chosen_rows", tokens_of_step(limits), model.config().width),
      hidden_("hidden_rows", limits.drafts > 0 ? tokens_of_step(limits) : 0, model.config().width),
      lent_("lent_rows", hidden_.extent(0), model.config().width),
      logits_("logits", std::int64_t{1} * tokens_of_step(limits) * model.config().vocabulary),
      low_("head_low", tokens_of_step(limits), model.config().adapters.rank) {
  require(tokens_of_step(limits) <= most_tokens(), std::to_string(tokens_of_step(limits)) +
                                                       " tokens step together, at most " +
                                                       std::to_string(most_tokens()) + " can");
  require(limits.drafts == 0 || model.config().mtp_modules > 0,
          "drafts want a model with an MTP module");
}

template <class Storage>
int Decoder<Storage>::most_tokens() {
  return few_rows;
}

template <class Storage>
void Decoder<Storage>::begin(int slot) {
  const int first = slot * rows_of_slot(limits_);
  slots_[slot] = {.state = first, .first = first};
  for (const auto& layer : state_.layers) {
    clear_row(exec_, layer.delta_net.memory, slots_[slot].state);
    clear_row(exec_, layer.delta_net.conv_tail, slots_[slot].state);
  }
}

template <class Storage>
void Decoder<Storage>::require_room(int slot, int tokens) const {
  require(slots_[slot].length + tokens <= limits_.capacity,
          "the document outgrows its " + std::to_string(limits_.capacity) + " tokens");
}

template <class Storage>
void Decoder<Storage>::pass(const Microbatch& batch, const MicrobatchShape& shape, Memory& memory,
                            bool step, Keep keep) {
  auto& slot = memory.slot(0, 0, shape);
  const auto& work = memory.work(shape);
  messages_.receive_input(slot);
  if (step) {
    model_.step(exec_, batch, state_, slot.saved, work, keep);
  } else {
    model_.forward(exec_, batch, Dropout{}, slot.saved, work, &state_, &state_);
  }
  messages_.send_output(slot);
}

template <class Storage>
void Decoder<Storage>::copy_rows(const Tensor<const Storage, 2>& from, const std::vector<int>& rows,
                                 const Tensor<Storage, 2>& to, const std::vector<int>& places) {
  std::vector<int> index = rows;
  index.insert(index.end(), places.begin(), places.end());
  const int count = static_cast<int>(rows.size());
  Kokkos::parallel_for("decoder::copy_rows", row_policy(exec_, count),
                       CopyRows<Storage>{from, batch_.indices(exec_, index), to, count});
}

template <class Storage>
typename Decoder<Storage>::Logits Decoder<Storage>::read(int slot, const std::vector<int>& tokens,
                                                         int behind) {
  const int count = static_cast<int>(tokens.size());
  if (count == 0) {
    step({});
    if (drafts_here()) {
      draft({});
    }
    return {};
  }
  require(count <= limits_.piece, std::to_string(count) + " tokens are read at once, wanted " +
                                      std::to_string(limits_.piece) + " at most");
  require_room(slot, count);
  Slot& document = slots_[slot];
  const MicrobatchShape shape{count, 1, 1};
  const std::vector<NextTokens> next{
      {tokens, document.length, slot, document.state, document.first}};
  pass(batch_.make(exec_, next), shape, reading_, false, Keep::last);
  document.length += count;
  document.state = document.first;
  document.unseen = 1;
  if (!last_stage()) {
    return {};
  }
  const auto& saved = reading_.in_flight(0, 0).saved;
  const auto all = model_.head().all_rows(exec_, saved.normed, reading_.work(shape).head);
  copy_rows(all, {count - 1}, chosen_, {0});
  if (drafts_here()) {
    copy_rows(all, {count - 1}, hidden_, {slot * kept()});
    teach(tokens, slot, behind, shape);
  }
  return logits_of(1);
}

// The module follows the trunk over a piece. What follows its last token is not always known: that
// place is overwritten by the first draft.
template <class Storage>
void Decoder<Storage>::teach(const std::vector<int>& tokens, int slot, int behind,
                             const MicrobatchShape& shape) {
  std::vector<int> next(tokens.begin() + 1, tokens.end());
  next.push_back(std::max(behind, 0));
  const int first = slots_[slot].length - shape.tokens;
  auto& draft = learning_.get(shape);
  model_.draft(exec_, batch_.make(exec_, {{next, first, slot, slot, slot}}),
               reading_.in_flight(0, 0).saved.normed, state_, draft);
}

template <class Storage>
typename Decoder<Storage>::Logits Decoder<Storage>::step(const std::vector<Next>& next) {
  const Logits logits = step_tokens(next, Keep::last);
  for (const auto& [slot, tokens] : next) {
    slots_[slot].length += static_cast<int>(tokens.size());
    slots_[slot].state = slots_[slot].first;
  }
  return logits;
}

template <class Storage>
typename Decoder<Storage>::Logits Decoder<Storage>::check(const std::vector<Next>& next) {
  return step_tokens(next, Keep::each);
}

template <class Storage>
typename Decoder<Storage>::Logits Decoder<Storage>::step_tokens(const std::vector<Next>& next,
                                                                Keep keep) {
  std::vector<NextTokens> documents;
  std::vector<int> places;
  for (const auto& [slot, tokens] : next) {
    const int count = static_cast<int>(tokens.size());
    require_room(slot, count);
    const Slot& from = slots_[slot];
    documents.push_back({tokens, from.length, slot, from.state, from.first});
    for (int i = 0; i < count; ++i) {
      places.push_back(slot * kept() + i);
    }
  }
  const int count = static_cast<int>(places.size());
  const MicrobatchShape shape = shape_of_step(count, limits_.documents);
  pass(batch_.make(exec_, documents), shape, stepping_, true, keep);
  if (!last_stage() || count == 0) {
    return {};
  }
  const auto& saved = stepping_.in_flight(0, 0).saved;
  const auto all = model_.head().all_rows(exec_, saved.normed, stepping_.work(shape).head);
  copy_rows(all, counted(count), chosen_, counted(count));
  if (keep == Keep::each) {
    copy_rows(all, counted(count), hidden_, places);
  }
  return logits_of(count);
}

template <class Storage>
void Decoder<Storage>::accept(int slot, int tokens) {
  slots_[slot].length += tokens;
  slots_[slot].state = slots_[slot].first + tokens - 1;
  slots_[slot].unseen = tokens;
}

template <class Storage>
void Decoder<Storage>::mark(int slot) {
  require(limits_.marks, "this decoder does not mark documents");
  Slot& document = slots_[slot];
  document.marked_length = document.length;
  document.marked_state = document.state;
  const int half = slot * rows_of_slot(limits_);
  document.first = document.state < half + kept() ? half + kept() : half;
}

template <class Storage>
void Decoder<Storage>::go_back(int slot) {
  Slot& document = slots_[slot];
  document.length = document.marked_length;
  document.state = document.marked_state;
  document.unseen = 0;
}

template <class Storage>
typename Decoder<Storage>::Logits Decoder<Storage>::draft(const std::vector<Next>& next) {
  std::vector<NextTokens> documents;
  std::vector<int> places, last;
  for (const auto& [slot, tokens] : next) {
    const int count = static_cast<int>(tokens.size());
    require(count == slots_[slot].unseen,
            "the MTP module is given " + std::to_string(count) + " tokens, wanted are the " +
                std::to_string(slots_[slot].unseen) + " that it has not seen");
    documents.push_back({tokens, slots_[slot].length - count, slot, slot, slot});
    for (int i = 0; i < count; ++i) {
      places.push_back(slot * kept() + i);
    }
    last.push_back(static_cast<int>(places.size()) - 1);
    slots_[slot].unseen = 0;
  }
  if (!last_stage()) {
    return {};
  }
  copy_rows(hidden_, places, lent_, counted(static_cast<int>(places.size())));
  return draft_behind(documents, last, first_rows<Storage>(lent_, static_cast<int>(places.size())));
}

template <class Storage>
typename Decoder<Storage>::Logits Decoder<Storage>::draft_more(const std::vector<Next>& next,
                                                               int number) {
  if (!last_stage()) {
    return {};
  }
  std::vector<NextTokens> documents;
  for (const auto& [slot, tokens] : next) {
    documents.push_back({tokens, slots_[slot].length + number - 2, slot, slot, slot});
  }
  const int count = static_cast<int>(next.size());
  copy_rows(chosen_, counted(count), lent_, counted(count));
  return draft_behind(documents, counted(count), first_rows<Storage>(lent_, count));
}

// `hidden` are all rows; the module is given those of this rank.
template <class Storage>
typename Decoder<Storage>::Logits Decoder<Storage>::draft_behind(
    const std::vector<NextTokens>& documents, const std::vector<int>& rows,
    const Tensor<const Storage, 2>& hidden) {
  const int count = hidden.extent_int(0);
  const MicrobatchShape shape = shape_of_step(count, limits_.documents);
  const TokenRows mine = RowSplit(grid_, count, 1).token_rows();
  const std::int64_t begin = std::int64_t{mine.first} * hidden.extent_int(1);
  auto& draft = drafting_.get(shape);
  model_.draft(exec_, batch_.make(exec_, documents),
               Tensor<const Storage, 2>(hidden.data() + begin, mine.rows, hidden.extent(1)), state_,
               draft);
  if (rows.empty()) {
    return {};
  }
  const auto all = model_.head().all_rows(exec_, draft.saved.normed, draft.head);
  copy_rows(all, rows, chosen_, counted(static_cast<int>(rows.size())));
  return logits_of(static_cast<int>(rows.size()));
}

// Of the first of the chosen rows.
template <class Storage>
typename Decoder<Storage>::Logits Decoder<Storage>::logits_of(int rows) {
  const auto& head = model_.head();
  const std::int64_t begin = std::int64_t{rows} * head.first_token();
  model_.logits(exec_, first_rows<Storage>(chosen_, rows),
                Tensor<Real, 2>(logits_.data() + begin, rows, head.tokens_of_rank()), low_);
  return on_host(rows);
}

template <class Storage>
typename Decoder<Storage>::Logits Decoder<Storage>::on_host(int rows) const {
  const int V = model_.config().vocabulary, ranks = grid_.degrees.tensor;
  const Tensor<Real, 1> all =
      Kokkos::subview(logits_, std::pair<std::int64_t, std::int64_t>(0, std::int64_t{rows} * V));
  if (ranks > 1) {
    std::vector<std::int64_t> borders;
    for (int r = 0; r <= ranks; ++r) {
      borders.push_back(rows * part_begin(V, r, ranks));
    }
    grid_.tensor.all_gather_parts(all, borders);
  }
  if (grid_.place.tensor != 0) {
    return {};
  }
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), all);
  Logits logits(rows);
  for (int r = 0; r < ranks; ++r) {
    const auto first = part_begin(V, r, ranks), width = part_begin(V, r + 1, ranks) - first;
    for (int i = 0; i < rows; ++i) {
      const Real* const part = host.data() + rows * first + i * width;
      logits[i].insert(logits[i].end(), part, part + width);
    }
  }
  return logits;
}

template class Decoder<bf16>;
template class Decoder<float>;
template class Decoder<double>;

}  // namespace qnext
