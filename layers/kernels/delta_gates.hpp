// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/types.hpp"

namespace qnext {

/// The gates of a delta rule, from a projection that is grouped by key head, [b (R) | a (R)] for
/// each of the G key heads:
///
///     beta = sigmoid(b),   log_decay = -exp(A_log) softplus(a + dt_bias)
///
/// All in Real, because a log decay is summed over a chunk and exponentiated.
template <class Real>
void delta_gates(const Exec& exec, int G, const Tensor<const Real, 2>& ba,  // (T, 2H)
                 const Tensor<const Real, 1>& a_log,                        // (H)
                 const Tensor<const Real, 1>& dt_bias,                      // (H)
                 const Tensor<Real, 2>& log_decay,                          // (T, H)
                 const Tensor<Real, 2>& beta);                              // (T, H)

/// Sums of the gradients of A_log and dt_bias over fixed blocks of tokens.
template <class Real>
struct DeltaGatesWork {
  Tensor<Real, 2> partial;  // (token blocks, 2H)
};
template <class Real>
DeltaGatesWork<Real> reserve_delta_gates_work(Arena& arena, int T, int H);

/// The adjoint, from the gates themselves: with s = softplus(a + dt_bias) = -log_decay / exp(A_log)
/// the derivative of s is 1 - exp(-s). Overwrites dba, adds to the gradients of A_log and dt_bias.
template <class Storage>
void delta_gates_backward(const Exec& exec, int G,
                          const Tensor<const Accum<Storage>, 2>& dlog_decay,  // (T, H)
                          const Tensor<const Accum<Storage>, 2>& dbeta,       // (T, H)
                          const Tensor<const Accum<Storage>, 2>& log_decay,   // (T, H)
                          const Tensor<const Accum<Storage>, 2>& beta,        // (T, H)
                          const Tensor<const Accum<Storage>, 1>& a_log,       // (H)
                          const Tensor<Storage, 2>& dba,                      // (T, 2H)
                          const Tensor<Accum<Storage>, 1>& da_log,            // (H)
                          const Tensor<Accum<Storage>, 1>& ddt_bias,          // (H)
                          const DeltaGatesWork<Accum<Storage>>& work);

}  // namespace qnext
