// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace qnext {

/// One entry of the deck's `data.train` or `data.evaluate`.
struct SourceConfig {
  std::string path = {};  // text file | Megatron-LM's PREFIX.bin + PREFIX.idx | synthetic:NAME
  double weight = 1.0;    // share in a blend; any unit
  std::string separator =
      {};  // text: a line that is just this ends a document; empty: one document
  std::string tokenizer = {};     // text: tokenizer.json or its folder; empty: bytes are tokens
  int document = 256;             // synthetic: tokens of a document
  std::int64_t tokens = 1 << 24;  // synthetic: tokens of an epoch
};

/// Documents of token ids, one after the other in one long row. Nothing is read before it is asked
/// for, so a source may be larger than the memory.
class TokenSource {
 public:
  virtual ~TokenSource() = default;

  virtual const std::string& name() const = 0;
  virtual std::int64_t tokens() const = 0;
  virtual std::int64_t documents() const = 0;

  /// Where document d starts, 0 <= d <= documents(); never falls with d, and documents() gives
  /// tokens(). A document may be empty.
  virtual std::int64_t document_begin(std::int64_t d) const = 0;

  /// The ids at begin ... begin + count - 1, which must lie within the source. Throws InputError
  /// for a negative id and for one that int32 does not hold.
  virtual void read(std::int64_t begin, std::int64_t count, std::int32_t* ids) const = 0;

  /// Whether some tokens are given and not to be learnt: as labels they count for nothing.
  virtual bool has_given() const { return false; }

  /// Of a source that has given tokens: 1 for each that is learnt, else 0.
  virtual void read_learnt(std::int64_t begin, std::int64_t count, std::uint8_t* learnt) const;

  /// The document that owns the token at `position`.
  std::int64_t document_of(std::int64_t position) const;

  /// How many documents any `window` consecutive tokens touch at most. Looks at every document.
  int most_documents(std::int64_t window) const;
};

/// Bytes are tokens. Without a separator the file is one document.
std::unique_ptr<TokenSource> open_text(const std::string& path, const std::string& separator);

/// Text or JSONL, packed or not, as `qnext tokenize` encodes it, held in memory.
std::unique_ptr<TokenSource> open_tokenized(const std::string& path, const std::string& separator,
                                            const std::string& tokenizer);

/// Megatron-LM's indexed token files, version 1; `path` with or without .bin or .idx. The index is
/// checked against both files before anything is believed. PREFIX.mask, where it is, says which
/// tokens are learnt.
std::unique_ptr<TokenSource> open_indexed(const std::string& path);

/// Documents of equal length that are computed, not stored; equal seeds give equal tokens.
///   uniform  independent ids: nothing to learn, ln(vocabulary) nats
///   markov   each id has four followers, of probability 1/2, 1/4, 1/8, 1/8: 1.213 nats
///   copy     a random half document and then the same again: 0 nats in the second half
std::unique_ptr<TokenSource> make_synthetic(const SourceConfig& config, int vocabulary,
                                            std::uint64_t seed);

/// Any of these, by the path.
std::unique_ptr<TokenSource> open_token_source(const SourceConfig& config, int vocabulary,
                                               std::uint64_t seed);

}  // namespace qnext
