// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

namespace qnext {

/// The two inputs of a SwiGLU: halves of the rows of one matrix (R, 2F), or two matrices (R, F).
template <class T>
struct GateUp {
  T* gate;
  T* up;
  int stride;  // elements from one row to the next
};

template <class T>
GateUp<T> side_by_side(const Tensor<T, 2>& gate_up) {
  const int F = gate_up.extent_int(1) / 2;
  return {gate_up.data(), gate_up.data() + F, 2 * F};
}

template <class T>
GateUp<T> apart(const Tensor<T, 2>& gate, const Tensor<T, 2>& up) {
  return {gate.data(), up.data(), gate.extent_int(1)};
}

/// Which rows are computed, and what their results are multiplied by.
template <class Real>
struct SwigluRows {
  int count;                     // A
  Tensor<const int, 1> row;      // (A)  -1: none. Empty: row a of a
  Tensor<const Real, 1> factor;  // (A)  Empty: 1
};

/// hidden = factor silu(gate) up, in Accum<Storage>, for rows of hidden (R, F).
template <class Storage>
void swiglu_forward(const Exec& exec, const SwigluRows<Accum<Storage>>& rows,
                    const GateUp<const Storage>& in, const Tensor<Storage, 2>& hidden);

/// `hidden` (R, F) comes in as the gradient of what forward gave and leaves as what forward gave,
/// which the gradient of the next matrix needs. With h = silu(gate) up, dh = factor dhidden:
///
///     dgate = dh up silu'(gate),   dup = dh silu(gate),   dfactor = sum_f dhidden h
///
/// dfactor (A), 0 for rows that are none, or empty.
template <class Storage>
void swiglu_backward(const Exec& exec, const SwigluRows<Accum<Storage>>& rows,
                     const GateUp<const Storage>& in, const Tensor<Storage, 2>& hidden,
                     const GateUp<Storage>& gradient, const Tensor<Accum<Storage>, 1>& dfactor);

}  // namespace qnext
