// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"
#include "layers/balance_loss.hpp"

namespace qnext {

/// What the router decides for each token. T tokens, E experts, K of them for each token.
template <class Real>
struct Routing {
  Tensor<Real, 2> probabilities;  // (T, E)  softmax of the logits
  Tensor<Real, 1> log_sum;        // (T)     log sum_e exp(logit)
  Tensor<int, 2> selected;        // (T, K)  most probable first, ties to the lower index
  Tensor<Real, 2> weights;        // (T, K)  as multiplied: 0 for what a capacity drops
  bool given = false;  // `selected` comes in and stays: another program's choices are replayed
};

/// routing.probabilities comes in as logits; fills everything. With `renormalise` the weights of a
/// token are divided by their sum.
template <class Real>
void route(const Exec& exec, bool renormalise, const Routing<Real>& routing);

/// dlogits (T, E) from the gradients of the weights before dropping, dweights (T, K), and from the
/// balance losses (null: none). With p the probabilities, w_k = p_k / s, s = 1 or the sum of the
/// selected:
///
///     selected, renormalised:   dl_k += w_k (dw_k - sum_j w_j dw_j)
///     selected, as they are:    dl_e += p_e ([e selected] dw_e - sum_j p_j dw_j)
///     balance:                  dl_e += kappa p_e (C_e - sum_j p_j C_j)
///     z:                        dl_e += zeta log_sum p_e
template <class Real>
void route_backward(const Exec& exec, bool renormalise, const Routing<Real>& routing,
                    const Tensor<const Real, 2>& dweights, const BalanceGradient<Real>* balance,
                    const Tensor<Real, 2>& dlogits);

}  // namespace qnext
