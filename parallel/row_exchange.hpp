// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "parallel/communicator.hpp"

#include <cstdint>
#include <vector>

namespace qnext {

/// Rows that lie sorted by group on every rank go to the ranks that own the groups, and results
/// come back. Of G groups over N ranks, rank n owns the G / N from n G / N on.
///
/// A rank orders the rows of its groups by group, in each group by source rank, in each of these as
/// the source has them: the order of one rank that has the rows of all, rank behind rank. In a
/// round it takes `capacity` rows of that list. Every rank knows the counts of all, so that all
/// agree on the rounds without another word.
class RowExchange {
 public:
  /// The same rows of a tensor where they come from and in the order in which they arrive.
  struct Rows {
    Buffer home;     // all rows of this rank, sorted by group
    Buffer message;  // the rows of a round by source rank, in each of these by group
    std::int64_t row_bytes;
  };

  /// What arrives in one round. L = G / N groups of this rank; piece s L + l is what source s has
  /// for its group l.
  struct Round {
    int rows = 0;
    std::vector<int> offset;   // (L + 1)  where a group begins among the ordered rows
    std::vector<int> arrived;  // (G)      where a piece begins in the message
    std::vector<int> ordered;  // (G)      where it begins among the ordered rows
  };

  /// No rows at all.
  RowExchange() = default;

  /// By all ranks: `count` (G) are the rows of this rank by group, `capacity` those that it takes
  /// in a round.
  RowExchange(const Communicator& ranks, const std::vector<int>& count, int capacity);

  int rounds() const { return rounds_; }
  Round round(int round) const;

  /// home -> message of the owners. By all ranks, as the next.
  void to_owners(int round, const std::vector<Rows>& rows) const;

  /// message -> home of the sources: the same rows as on the way out.
  void to_sources(int round, const std::vector<Rows>& rows) const;

 private:
  // A stretch of rows that one rank has for one other in a round.
  struct Stretch {
    std::int64_t begin;
    std::int64_t rows;
  };

  int groups_of_rank() const { return groups_ / ranks_.ranks(); }
  int count(int source, int group) const { return count_[source * groups_ + group]; }

  std::int64_t earlier(int source, int group, int round) const;
  std::vector<Stretch> at_home(int round) const;
  std::vector<Stretch> in_message(int round) const;

  Communicator ranks_;
  int groups_ = 0;
  int rounds_ = 0;
  std::vector<int> count_;     // (N, G)
  std::vector<int> capacity_;  // (N)
  std::vector<std::int64_t>
      position_;  // (N, G)  of the first row of a source and group in its list
};

}  // namespace qnext
