// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "core/types.hpp"

namespace qnext {

/// Low-rank adapters of a projection of all experts, W (E, out, in): each expert has factors of its
/// own, A (E, r, in) and B (E, out, r). As with Adapter, but products are those of the rows of each
/// expert, which stand together:
///
///     u = scale A_e x,   y += B_e u,   v = scale B_e^T dy
///     dB_e += dy u^T,    dA_e += v x^T,   dx += A_e^T v
///
/// R rows in the order of their experts, which begin at offset (E + 1); what is behind offset(E) is
/// anything. `low` (R, r) is memory. Factors live on the ranks of their experts. PEFT has the same
/// adapters where parameters are targeted; gate and up are one projection with one A.
template <class Storage>
class ExpertAdapter {
 public:
  /// Registers "....lora_A.weight" and "....lora_B.weight" for the parameter `of`.
  ExpertAdapter(ParameterTable& table, const Parameter& of);

  /// x (R, in), y (R, out).
  void add(const Exec& exec, const Tensor<const int, 1>& offset, const Tensor<const Storage, 2>& x,
           const Tensor<Storage, 2>& y, const Tensor<Storage, 2>& low) const;

  /// dx += scale (dy B) A. dy (R, out), dx (R, in).
  void add_input_gradient(const Exec& exec, const Tensor<const int, 1>& offset,
                          const Tensor<const Storage, 2>& dy, const Tensor<Storage, 2>& dx,
                          const Tensor<Storage, 2>& low) const;

  /// Those of A and B.
  void add_gradients(const Exec& exec, const Tensor<const int, 1>& offset,
                     const Tensor<const Storage, 2>& dy, const Tensor<const Storage, 2>& x,
                     const Tensor<Storage, 2>& low) const;

 private:
  /// scale x A^T and scale dy B, both (R, r), in `low`.
  Tensor<Storage, 2> down(const Exec& exec, const Tensor<const int, 1>& offset,
                          const Tensor<const Storage, 2>& x, const Tensor<Storage, 2>& low) const;
  Tensor<Storage, 2> down_gradient(const Exec& exec, const Tensor<const int, 1>& offset,
                                   const Tensor<const Storage, 2>& dy,
                                   const Tensor<Storage, 2>& low) const;

  double scale_;
  Weight<Storage, 3> a_;  // (E, r, in)
  Weight<Storage, 3> b_;  // (E, out, r)
};

}  // namespace qnext
