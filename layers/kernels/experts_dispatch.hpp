// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/types.hpp"
#include "layers/balance_loss.hpp"
#include "layers/kernels/router.hpp"

namespace qnext {

/// The rows of the grouped products: all choices (t, k), sorted by expert, in each expert by token.
/// A choice that a capacity drops has no row.
struct ExpertRows {
  Tensor<int, 2> place;   // (T, K)   row of a choice, or -1
  Tensor<int, 1> offset;  // (E + 1)  expert e owns the rows offset(e) ... offset(e + 1) - 1

  /// (T K)
  Tensor<const int, 1> flat_place() const {
    return Tensor<const int, 1>(place.data(), place.size());
  }
};

/// Counts of fixed blocks of tokens, so that no result depends on the number of threads. A block
/// lies in one sequence.
template <class Real>
struct DispatchWork {
  Tensor<int, 2> count;         // (blocks, E)
  Tensor<Real, 2> probability;  // (blocks, E)
  Tensor<Real, 1> square;       // (blocks)

  static DispatchWork reserve(Arena& arena, int tokens, int sequences, int experts);
};

/// Which choices are sorted: all of them, or those that have a row already.
enum class Choices { all, kept };

/// Fills `rows` by a stable counting sort, and the choices of each sequence, sequence_count (S, E),
/// unless that is empty. block_count is that of DispatchWork.
void sort_by_expert(const Exec& exec, int sequences, const Tensor<const int, 2>& selected,
                    Choices choices, const ExpertRows& rows, const Tensor<int, 2>& block_count,
                    const Tensor<int, 2>& sequence_count = {});

/// Fills statistics.probability and .square, in a fixed order of summation.
template <class Real>
void sum_routing(const Exec& exec, const Routing<Real>& routing,
                 const RoutingStatistics<Real>& statistics, const DispatchWork<Real>& work);

/// rows(place(t, k), :) = x(t, :)
template <class Storage>
void spread_tokens(const Exec& exec, const Tensor<const Storage, 2>& x,
                   const Tensor<const int, 2>& place, const Tensor<Storage, 2>& rows);

/// What else belongs to the sum over the rows of a token; empty tensors: nothing.
template <class Storage>
struct TokenTerms {
  using Real = Accum<Storage>;

  bool add = false;              // what the result held
  Tensor<const Real, 2> matrix;  // (T, D)
  Tensor<const Real, 1> scale;   // (T)  with direction (D): scale(t) direction(d)
  Tensor<const Storage, 1> direction;
};

/// y(t, :) = sum_k rows(place(t, k), :) in the order of k, after the other terms, in Accum.
template <class Storage>
void gather_tokens(const Exec& exec, const Tensor<const Storage, 2>& rows,
                   const Tensor<const int, 2>& place, const TokenTerms<Storage>& terms,
                   const Tensor<Storage, 2>& y);

}  // namespace qnext
