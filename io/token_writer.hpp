// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/posix_file.hpp"
#include "io/text/document.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace qnext {

/// How far a set of token files is, with everything before it on the disk.
struct TokenProgress {
  std::int64_t file = 0;     // of the inputs, the one that is read
  std::int64_t records = 0;  // of that file that are done
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
  std::int64_t learnt = 0;  // tokens whose mask is 1
};

/// Writes Megatron-LM's indexed token files, PREFIX.bin and PREFIX.idx, and beside them
/// PREFIX.mask, one byte a token, where some tokens are not learnt. Until the end they are called
/// *.part; PREFIX.progress then says how far they are, so that a writer that was killed goes on
/// from there, with the same bytes.
class TokenWriter {
 public:
  /// Ids are below `vocabulary`: 16 bits hold them up to 65500, else 32. What an earlier writer
  /// left is taken up where its `settings`, a hash of all that decides the bytes, are the same.
  /// Throws InputError where another one is at work.
  TokenWriter(const std::string& prefix, int vocabulary, const std::string& settings);
  ~TokenWriter();

  /// Of the last `save`.
  const TokenProgress& progress() const { return progress_; }
  bool resumed() const { return progress_.documents > 0; }

  /// One document; an empty one is left out.
  void add(const Document& document);

  /// Makes everything so far last, and notes that `records` of input `file` are done.
  void save(std::int64_t file, std::int64_t records);

  /// Writes the index and gives the files their names. Throws InputError where there is no token.
  void finish();

 private:
  void take_up();
  void write_index();

  /// A file that grows at its end, through a buffer.
  class Growing;

  std::string prefix_, settings_;
  int id_bytes_;
  TokenProgress progress_;
  std::optional<PosixFile> alone_;  // PREFIX.bin.part, for as long as this one writes
  std::unique_ptr<Growing> ids_, lengths_, mask_;
};

}  // namespace qnext
