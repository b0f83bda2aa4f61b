// SPDX-License-Identifier: Apache-2.0
#include "io/data_stream.hpp"

#include "core/random.hpp"
#include "core/require.hpp"
#include "io/data_shuffle.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qnext {
namespace {

constexpr std::int64_t blend_places = 65536;

// The first token, or the first document, that is held out.
std::int64_t split_of(const TokenSource& source, const StreamConfig& config) {
  // A fraction like 0.1 is not exact in binary; a thousandth of a token makes up for that.
  const auto all = static_cast<double>(source.tokens());
  const auto token = static_cast<std::int64_t>(std::floor((1.0 - config.held_out) * all + 1e-3));
  if (config.pack || token >= source.tokens()) {
    return config.pack ? token : source.documents();
  }
  const std::int64_t document = source.document_of(token);
  return source.document_begin(document) == token ? document : document + 1;
}

void check_config(const StreamConfig& config) {
  require(config.sequence > 0 && config.vocabulary > 0, "the stream needs sequence and vocabulary");
  require(config.held_out >= 0.0 && config.held_out < 1.0, "held_out must lie in [0, 1)");
  if (config.sources.empty()) {
    throw InputError("data: no source is given, expected at least one path");
  }
}

// Labels at `at` ... whose tokens are given, and not learnt, count for nothing. The label of the
// token at `begin` is the one behind it; `readable` tokens are there.
void ignore_given(const TokenSource& source, std::int64_t begin, std::int64_t readable,
                  std::size_t at, TokenBatch& batch) {
  std::vector<std::uint8_t> learnt(static_cast<std::size_t>(readable));
  source.read_learnt(begin, readable, learnt.data());
  for (std::size_t i = 1; i < learnt.size(); ++i) {
    std::int32_t& label = batch.labels[at + i - 1];
    if (learnt[i] == 0 && label != -1) {
      label = -1;
      --batch.label_count;
    }
  }
}

// Appends tokens begin ... begin + count - 1 of a source, whose label range ends at `end`.
void append_window(const TokenSource& source, const StreamConfig& config, std::int64_t begin,
                   std::int64_t count, std::int64_t end, TokenBatch& batch) {
  const std::size_t at = batch.tokens.size();
  const auto whole = static_cast<std::size_t>(count);
  batch.tokens.resize(at + whole + 1);
  const std::int64_t readable = std::min(count + 1, end - begin);
  source.read(begin, readable, batch.tokens.data() + at);
  for (std::int64_t i = 0; i < readable; ++i) {
    if (batch.tokens[at + static_cast<std::size_t>(i)] >= config.vocabulary) {
      throw InputError(fmt::format("{}: token {} is {}, but the vocabulary has {}", source.name(),
                                   begin + i, batch.tokens[at + static_cast<std::size_t>(i)],
                                   config.vocabulary));
    }
  }
  batch.labels.insert(batch.labels.end(),
                      batch.tokens.begin() + static_cast<std::ptrdiff_t>(at) + 1,
                      batch.tokens.end());
  batch.tokens.pop_back();
  if (readable <= count) {
    batch.labels.back() = -1;
  }
  batch.label_count += std::min(count, readable - 1);
  std::int64_t from = begin;
  for (std::int64_t d = source.document_of(begin); from < begin + count; ++d) {
    const std::int64_t border = source.document_begin(d + 1);
    const std::int64_t to = std::min(border, begin + count);
    if (to > from) {
      batch.lengths.push_back(static_cast<int>(to - from));
    }
    std::int32_t& last = batch.labels[at + static_cast<std::size_t>(to - begin) - 1];
    if (to == border && last != -1) {
      last = -1;
      --batch.label_count;
    }
    from = to;
  }
  if (source.has_given()) {
    ignore_given(source, begin, readable, at, batch);
  }
  ++batch.sequences;
}

void fill_up(int count, TokenBatch& batch) {
  if (count > 0) {
    batch.tokens.resize(batch.tokens.size() + static_cast<std::size_t>(count), 0);
    batch.labels.resize(batch.labels.size() + static_cast<std::size_t>(count), -1);
    batch.lengths.push_back(count);
  }
}

// A document of its own, cut after `sequence` tokens.
void append_document(const TokenSource& source, const StreamConfig& config, std::int64_t document,
                     TokenBatch& batch) {
  const std::int64_t begin = source.document_begin(document);
  const std::int64_t end = source.document_begin(document + 1);
  const std::int64_t count = std::min<std::int64_t>(end - begin, config.sequence);
  if (count > 0) {
    append_window(source, config, begin, count, end, batch);
  } else {
    fill_up(1, batch);  // an empty document: a row has at least one token
    ++batch.sequences;
  }
}

}  // namespace

TokenStream::TokenStream(const StreamConfig& config) : config_(config) {
  check_config(config);
  const std::int64_t S = config.sequence;
  for (const SourceConfig& entry : config.sources) {
    if (!(entry.weight > 0.0) || !std::isfinite(entry.weight)) {
      throw InputError(
          fmt::format("{}: weight = {}, expected more than 0", entry.path, entry.weight));
    }
    Part part{open_token_source(entry, config.vocabulary, config.seed), 0, 0, false, 1, 0};
    const TokenSource& source = *part.source;
    part.end = split_of(source, config);
    part.windows = config.pack ? (part.end - 1) / S : part.end;
    if (part.windows < 1) {
      throw InputError(fmt::format(
          "{}: {} tokens in {} documents, of which the last {} is held out, give no sequence of {} "
          "tokens to train on",
          entry.path, source.tokens(), source.documents(), config.held_out, S));
    }
    // With few windows the tokens that a moved grid leaves out would be a large part of all.
    part.moves = config.pack && config.shuffle && part.windows >= 64;
    part.windows -= part.moves ? 1 : 0;
    part.key = random_key(config.seed, fmt::format("data.{}", parts_.size()));
    most_documents_ = std::max(most_documents_, config.pack ? source.most_documents(S) : 2);
    parts_.push_back(std::move(part));
  }
  lay_out_blend();
  fingerprint_ = fingerprint();
}

// Each place goes to the source that is furthest behind its share.
void TokenStream::lay_out_blend() {
  if (parts_.size() == 1) {
    order_.push_back({0, 0});
    return;
  }
  double sum = 0.0;
  for (const SourceConfig& entry : config_.sources) {
    sum += entry.weight;
  }
  std::int64_t given = 0;
  for (std::size_t p = 0; p < parts_.size(); ++p) {
    const double share = config_.sources[p].weight / sum;
    parts_[p].places = std::max<std::int64_t>(1, std::llround(share * blend_places));
    given += parts_[p].places;
  }
  const auto largest =
      std::max_element(parts_.begin(), parts_.end(),
                       [](const Part& a, const Part& b) { return a.places < b.places; });
  largest->places += blend_places - given;  // what rounding left over
  std::vector<std::int64_t> used(parts_.size(), 0);
  order_.reserve(blend_places);
  for (std::int64_t place = 0; place < blend_places; ++place) {
    std::size_t next = 0;
    std::int64_t furthest = -1;
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      const std::int64_t behind = parts_[p].places * (place + 1) - used[p] * blend_places;
      if (used[p] < parts_[p].places && behind > furthest) {
        furthest = behind;
        next = p;
      }
    }
    order_.push_back({static_cast<int>(next), used[next]++});
  }
}

TokenStream::Address TokenStream::address(std::int64_t sequence) const {
  const auto places = static_cast<std::int64_t>(order_.size());
  const Place& place = order_[static_cast<std::size_t>(sequence % places)];
  const Part& part = parts_[static_cast<std::size_t>(place.part)];
  const std::int64_t turn = (sequence / places) * part.places + place.before;
  const std::int64_t epoch = turn / part.windows, window = turn % part.windows;
  if (!config_.shuffle) {
    return {&part, epoch, window};
  }
  const std::uint64_t key = random_bits(part.key, static_cast<std::uint64_t>(epoch));
  return {&part, epoch, shuffled(window, part.windows, key)};
}

TokenBatch TokenStream::batch(const DataCursor& cursor, std::int64_t first, int count) const {
  const std::int64_t S = config_.sequence;
  TokenBatch batch;
  for (std::int64_t i = cursor.sequences + first; i < cursor.sequences + first + count; ++i) {
    const Address at = address(i);
    if (config_.pack) {
      const std::uint64_t bits = random_bits(~at.part->key, static_cast<std::uint64_t>(at.epoch));
      const auto shift =
          at.part->moves ? static_cast<std::int64_t>(bits % static_cast<std::uint64_t>(S)) : 0;
      append_window(*at.part->source, config_, at.window * S + shift, S, at.part->end, batch);
    } else {
      const std::size_t before = batch.tokens.size();
      append_document(*at.part->source, config_, at.window, batch);
      fill_up(config_.sequence - static_cast<int>(batch.tokens.size() - before), batch);
    }
  }
  return batch;
}

void TokenStream::check(const DataCursor& cursor) const {
  if (cursor.fingerprint != fingerprint_) {
    throw InputError(
        fmt::format("data: the restart belongs to other data (fingerprint {:016x}, these have "
                    "{:016x}): sources, weights, sequence, pack, shuffle, seed and held-out part "
                    "must be the same",
                    cursor.fingerprint, fingerprint_));
  }
}

std::int64_t TokenStream::tokens() const {
  std::int64_t sum = 0;
  for (const Part& part : parts_) {
    sum += config_.pack ? part.end : part.source->document_begin(part.end);
  }
  return sum;
}

std::int64_t TokenStream::taken(std::size_t part, std::int64_t sequences) const {
  const auto places = static_cast<std::int64_t>(order_.size());
  const auto rest = order_.begin() + static_cast<std::ptrdiff_t>(sequences % places);
  return (sequences / places) * parts_[part].places +
         std::count_if(order_.begin(), rest, [part](const Place& place) {
           return static_cast<std::size_t>(place.part) == part;
         });
}

std::vector<SourceProgress> TokenStream::progress(const DataCursor& cursor) const {
  std::vector<SourceProgress> all;
  for (std::size_t p = 0; p < parts_.size(); ++p) {
    const std::int64_t turn = taken(p, cursor.sequences), windows = parts_[p].windows;
    all.push_back({parts_[p].source->name(), turn / windows, turn % windows, windows});
  }
  return all;
}

// Names of files are left out: data may be moved between two runs. The first tokens stand for the
// rest.
std::uint64_t TokenStream::fingerprint() const {
  std::uint64_t hash = random_key(config_.seed, "data");
  const auto add = [&](std::int64_t value) {
    hash = mix_bits(hash ^ static_cast<std::uint64_t>(value));
  };
  add(config_.sequence);
  add(config_.pack);
  add(config_.shuffle);
  for (const Part& part : parts_) {
    add(part.source->tokens());
    add(part.source->documents());
    add(part.end);
    add(part.places);
    std::vector<std::int32_t> ids(
        static_cast<std::size_t>(std::min<std::int64_t>(4096, part.source->tokens())));
    part.source->read(0, static_cast<std::int64_t>(ids.size()), ids.data());
    for (const std::int32_t id : ids) {
      add(id);
    }
  }
  return hash;
}

EvaluationStream::EvaluationStream(const StreamConfig& config) : config_(config) {
  check_config(config);
  const std::int64_t S = config.sequence;
  for (const SourceConfig& entry : config.sources) {
    Part part{open_token_source(entry, config.vocabulary, config.seed), 0, 0, 0};
    const TokenSource& source = *part.source;
    part.begin = config.held_out > 0.0 ? split_of(source, config) : 0;
    if (config.pack) {
      part.end = source.tokens();
      part.begin = std::max<std::int64_t>(0, part.begin - 1);  // the input of the first label
      part.windows = (part.end - part.begin - 1 + S - 1) / S;
    } else {
      part.end = source.documents();
      part.windows = part.end - part.begin;
    }
    most_documents_ = std::max(most_documents_, config.pack ? source.most_documents(S) : 1);
    windows_ += part.windows;
    parts_.push_back(std::move(part));
  }
  if (windows_ == 0) {
    throw InputError(fmt::format("{}: nothing is left to evaluate on: the last {} of {} tokens",
                                 config.sources.front().path, config.held_out,
                                 parts_.front().source->tokens()));
  }
}

TokenBatch EvaluationStream::batch(std::int64_t first, int count) const {
  const std::int64_t S = config_.sequence;
  TokenBatch batch;
  for (const Part& part : parts_) {
    const std::int64_t last = std::min(part.windows, first + count);
    for (std::int64_t w = std::max<std::int64_t>(0, first); w < last; ++w) {
      if (config_.pack) {
        const std::int64_t begin = part.begin + w * S;
        append_window(*part.source, config_, begin, std::min(S, part.end - 1 - begin), part.end,
                      batch);
      } else {
        append_document(*part.source, config_, part.begin + w, batch);
      }
    }
    first -= part.windows;
  }
  return batch;
}

}  // namespace qnext
