// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/matmul.hpp"
#include "core/types.hpp"

namespace qnext {

/// The mixture of experts for a few tokens, bound by the bandwidth to the weights of the chosen
/// experts, which are read where they lie. T tokens, D model width, E experts of width F, K for
/// each token, G width of the shared expert or 0: then its tensors are empty.
template <class Storage>
struct ExpertsDecode {
  using Real = Accum<Storage>;

  Tensor<const Storage, 2> x;            // (T, D)
  Tensor<const Real, 2> router;          // (E, D)
  Tensor<const Storage, 3> gate_up;      // (E, 2F, D)
  Tensor<const Storage, 3> down;         // (E, D, F)
  Tensor<const Storage, 2> shared_gate;  // (G, D)
  Tensor<const Storage, 2> shared_up;    // (G, D)
  Tensor<const Storage, 2> shared_down;  // (D, G)
  Tensor<const Storage, 2> direction;    // (1, D)  of the shared expert's gate
  Tensor<const int, 2> selected;         // (T, K)
  Tensor<const Real, 2> weights;         // (T, K)
  Tensor<Real, 1> shared_factor;         // (T)
  Tensor<Real, 2> hidden;                // (T, K F + G)

  /// logits (T, E) of the router, and shared_factor.
  void logits(const Exec& exec, const Tensor<Real, 2>& logits) const;

  /// After the choice: hidden = weight silu(gate x) (up x), then y (T, D) = sum of down hidden, or
  /// += that.
  void compute(const Exec& exec, const Tensor<Storage, 2>& y, Write write = Write::replace) const;
};

}  // namespace qnext
