// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"
#include "parallel/row_split.hpp"

#include <cstdint>

namespace qnext {

/// Dropout of a residual branch: element i, counted over all tokens of the microbatch, stays,
/// multiplied by 1 / (1 - probability), if a random number keyed by (key, i) says so. The same key
/// gives the same mask in forward, backward and recomputation.
struct Dropout {
  double probability = 0.0;
  std::uint64_t key = 0;
  TokenRows rows = {1, 1, 0};  // which tokens the rows are; by default row t is token t

  /// The mask of another place in the model.
  Dropout at(std::uint64_t place) const;
};

/// sum = x + dropout(branch), all (T, D). sum may be x. The residual stream is held in Accum:
/// it is the largest number of a layer, and one rounding of it to bf16 costs more than all others
/// of the layer together.
template <class Storage>
void add_branch(const Exec& exec, const Tensor<const Accum<Storage>, 2>& x,
                const Tensor<const Storage, 2>& branch, const Tensor<Accum<Storage>, 2>& sum,
                const Dropout& dropout);

/// dbranch = the gradient through that dropout, rounded. Without either it is a copy.
template <class Storage>
void branch_gradient(const Exec& exec, const Tensor<const Accum<Storage>, 2>& dsum,
                     const Tensor<Storage, 2>& dbranch, const Dropout& dropout);

}  // namespace qnext
