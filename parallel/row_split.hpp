// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/matmul.hpp"
#include "core/types.hpp"
#include "parallel/process_grid.hpp"

#include <cstdint>
#include <vector>

namespace qnext {

/// Which tokens the rows of a rank are: in every sequence of the microbatch, `rows` of them from
/// `first` on.
struct TokenRows {
  int rows = 1;      // in one sequence
  int sequence = 1;  // tokens in one sequence
  int first = 0;

  KOKKOS_INLINE_FUNCTION int token(int row) const {
    return row / rows * sequence + first + row % rows;
  }
};

/// The rows of (T, W) tensors, T tokens in sequences of equal length, divided over the ranks of a
/// group: each rank holds a consecutive piece of every sequence, the first ones a row more where
/// the length is no multiple. Where sequences are not equally long, all tokens count as one.
class RowSplit {
 public:
  /// One rank, which holds all rows.
  RowSplit() = default;

  RowSplit(const Communicator& group, int tokens, int sequences)
      : RowSplit(group, group.ranks(), group.rank(), tokens, sequences) {}

  /// Between the tensor ranks of the grid. A grid without ranks plans for the first of them.
  RowSplit(const ProcessGrid& grid, int tokens, int sequences)
      : RowSplit(grid.tensor, grid.degrees.tensor, grid.place.tensor, tokens, sequences) {}

  bool alone() const { return ranks_ == 1; }
  int ranks() const { return ranks_; }

  /// Of this rank, in all sequences.
  int rows() const { return rows_of(rank_) * sequences_; }
  TokenRows token_rows() const;

  /// Rows that come from the other ranks in a sum.
  int received_rows() const { return (ranks_ - 1) * rows(); }

  /// All rows, from `mine` (rows, W) in `whole` (T, W).
  template <class T>
  void gather(const Exec& exec, const Tensor<const T, 2>& mine, const Tensor<T, 2>& whole) const;

  /// The same where `whole` holds the rows of this rank.
  template <class T>
  void share(const Tensor<T, 2>& whole) const;

  /// mine (rows, W) = the rows of this rank in the sum of the `partial` (T, W) of all ranks, or +=
  /// that: in the order of the ranks, in wide numbers, rounded once. `received`: received_rows() x
  /// W numbers. `mine` may lie where these rows are in `partial`.
  template <class In, class Out>
  void sum(const Exec& exec, const Tensor<const In, 2>& partial, const Tensor<In, 1>& received,
           const Tensor<Out, 2>& mine, Write write = Write::replace) const;

 private:
  RowSplit(const Communicator& group, int ranks, int rank, int tokens, int sequences);

  int first_of(int rank) const;
  int rows_of(int rank) const { return first_of(rank + 1) - first_of(rank); }

  /// The pieces of the sequences that a rank holds of a whole tensor, in their order.
  void add_pieces(int rank, int of, const Buffer& whole, std::vector<Parcel>& parcels) const;

  Communicator group_;
  int ranks_ = 1;
  int rank_ = 0;
  int sequences_ = 1;
  int sequence_ = 0;  // tokens in one
};

}  // namespace qnext
