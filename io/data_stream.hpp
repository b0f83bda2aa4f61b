// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/token_source.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace qnext {

/// The tokens of some sequences, which lie in one row of T.
struct TokenBatch {
  std::vector<std::int32_t> tokens;  // (T)
  std::vector<std::int32_t> labels;  // (T)  the next token of the same document, or -1
  std::vector<int> lengths;          // (N)  of the pieces of documents, in order; their sum is T
  int sequences = 0;
  std::int64_t label_count = 0;  // labels that are not -1
};

struct StreamConfig {
  std::vector<SourceConfig> sources = {};
  int sequence = 0;  // tokens
  int vocabulary = 0;
  bool pack = true;
  bool shuffle = true;
  std::uint64_t seed = 1;
  double held_out = 0.0;  // last fraction of every source that is not trained on
};

/// Where a run is in its data. How many sequences were taken is all there is to know, because
/// sequence i is a pure function of (configuration, seed, i).
struct DataCursor {
  std::int64_t sequences = 0;
  std::uint64_t fingerprint = 0;  // of the stream that it belongs to
};

/// How far one source of a blend is.
struct SourceProgress {
  std::string name;
  std::int64_t epoch = 0;    // times that the source was read to its end
  std::int64_t window = 0;   // sequences taken in this epoch
  std::int64_t windows = 0;  // sequences of an epoch
};

/// Endless training data: sequence 0, 1, 2, ... of `sequence` tokens each.
///
/// pack: true. A source is one long row of documents, cut into windows of `sequence` tokens;
/// borders inside a window are kept, and a document that a window cuts goes on in another window as
/// a piece of its own. The label of a window's last token is the first token behind the window.
/// What is shuffled are the windows, and not the documents, because where a document would lie in a
/// row of shuffled ones is a sum over all before it, while the place of a window is a product: any
/// sequence is found without memory or search. With `shuffle` the grid of windows also starts at
/// another token in each epoch; without, window w starts at token w * sequence of the source. The
/// tokens behind the last whole window are left out.
///
/// pack: false. One document a sequence, cut after `sequence` tokens or filled up with ignored
/// tokens (id 0, label -1, a piece of their own).
///
/// Blends take sources in a fixed order of 65536 places that holds the weights exactly up to 1 in
/// 65536, spread evenly.
class TokenStream {
 public:
  explicit TokenStream(const StreamConfig& config);

  DataCursor start() const { return {0, fingerprint_}; }

  /// `count` sequences, of which the first is the one `first` places behind the cursor. Throws
  /// InputError for an id outside the vocabulary.
  TokenBatch batch(const DataCursor& cursor, std::int64_t first, int count) const;

  /// Refuses a cursor that belongs to other data, another sequence, seed or split.
  void check(const DataCursor& cursor) const;

  /// Pieces of documents in one sequence, at most.
  int most_documents() const { return most_documents_; }
  std::int64_t tokens() const;  // of all sources, without the held-out part
  std::vector<SourceProgress> progress(const DataCursor& cursor) const;

 private:
  struct Part {
    std::unique_ptr<TokenSource> source;
    std::int64_t end;      // train on tokens (pack) or documents (no pack) before this
    std::int64_t windows;  // sequences of an epoch
    bool moves;            // the grid starts elsewhere in each epoch
    std::int64_t places;   // of the blend's order
    std::uint64_t key;
  };
  struct Place {
    int part;
    std::int64_t before;  // places of the same part before this one
  };
  struct Address {
    const Part* part;
    std::int64_t epoch, window;  // the window in file order
  };

  void lay_out_blend();
  std::int64_t taken(std::size_t part, std::int64_t sequences) const;
  Address address(std::int64_t sequence) const;
  std::uint64_t fingerprint() const;

  StreamConfig config_;
  std::vector<Part> parts_;
  std::vector<Place> order_;
  int most_documents_ = 0;
  std::uint64_t fingerprint_ = 0;
};

/// The held-out part of every source (or all of it, if `held_out` is 0), in file order, once.
///
/// pack: true. Windows without overlap; every token of the held-out part is the label of exactly
/// one position, also its first, whose input is the last token before the part, but not a token
/// that begins a document. The last window of a source may be shorter, so T may be less than count
/// * sequence. pack: false. One document a window, cut after `sequence` tokens, not filled up.
class EvaluationStream {
 public:
  explicit EvaluationStream(const StreamConfig& config);

  std::int64_t windows() const { return windows_; }
  /// Windows first ... first + count - 1, as far as there are.
  TokenBatch batch(std::int64_t first, int count) const;
  int most_documents() const { return most_documents_; }

 private:
  struct Part {
    std::unique_ptr<TokenSource> source;
    std::int64_t begin, end;  // tokens (pack) or documents (no pack)
    std::int64_t windows;
  };

  StreamConfig config_;
  std::vector<Part> parts_;
  std::int64_t windows_ = 0;
  int most_documents_ = 0;
};

}  // namespace qnext
