// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/documents.hpp"
#include "core/types.hpp"

namespace qnext {

/// Zero-centred RMS norm of every head followed by a rotation of its first `rotary` channels
/// (rotate-half RoPE), the rest passes through:
///
///     n = x r (1 + w),   r = 1 / sqrt(mean(x^2) + epsilon)
///     y_i          = n_i cos - n_{i + half} sin
///     y_{i + half} = n_{i + half} cos + n_i sin,   half = rotary / 2,   i < half
///     angle of (t, i) = position_t base^(-2 i / rotary)
///
/// T tokens, H heads of width W. A head of `raw` may be followed by what belongs to another kernel
/// (the gate behind a query): only the first W of its channels are read or written.
template <class Storage>
struct HeadNorm {
  using Real = Accum<Storage>;

  Tensor<const Storage, 3> raw;    // (T, H, W or more)
  Tensor<const Real, 1> weight;    // (W)
  Tensor<const Real, 2> rotation;  // (T, rotary)  cosines, then sines
  Real epsilon;
};

/// The cosines and sines of all tokens, in Real.
template <class Real>
void rotary_angles(const Exec& exec, const Tensor<const int, 1>& position, double base,
                   const Tensor<Real, 2>& rotation);  // (T, rotary)

template <class Storage>
void norm_and_rotate(const Exec& exec, const HeadNorm<Storage>& in,
                     const Tensor<Storage, 3>& out);  // (T, H, W)

/// How many rows the partial sums of the weight gradient have.
int head_norm_blocks(int T);

/// Adds to the gradient of the weight and overwrites draw, which may be the memory of dout.
template <class Storage>
void norm_and_rotate_backward(const Exec& exec, const HeadNorm<Storage>& in,
                              const Tensor<const Storage, 3>& dout,      // (T, H, W or more)
                              const Tensor<Storage, 3>& draw,            // (T, H, W or more)
                              const Tensor<Accum<Storage>, 2>& partial,  // (blocks, W)
                              const Tensor<Accum<Storage>, 1>& dweight);

}  // namespace qnext
