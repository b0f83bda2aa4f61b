// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/matmul.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "parallel/process_grid.hpp"

#include <string>

namespace qnext {

/// The low-rank adapter of a projection W (out, in): y += scale B A x with A (r, in) and B (out,
/// r). As in PEFT, A starts uniform within 1 / sqrt(in) and B with zeros, so that nothing changes
/// at first.
///
///     u = scale A x,   y += B u,   v = scale B^T dy
///     dB += dy u^T,    dA += v x^T,   dx += A^T v
///
/// All but the factors is made in `low` (T, r), memory that the adapters of a layer share. Where
/// tensor ranks divide W by rows, each has those rows of B, and dA is a sum over them; where they
/// divide it by columns, each has those columns of A, and dB is such a sum: the other factor is the
/// same on all of them.
template <class Storage>
class Adapter {
 public:
  /// Registers "....lora_A.weight" and "....lora_B.weight" for the parameter `of`.
  Adapter(ParameterTable& table, const ProcessGrid& grid, const Parameter& of);

  /// What the calls below want for T tokens; empty in a model without adapters.
  static Tensor<Storage, 2> reserve_low(Arena& arena, const AdapterConfig& config, int tokens);

  /// x (T, in), y (T, out). Out is Storage or Accum<Storage>.
  template <class Out>
  void add(const Exec& exec, const Tensor<const Storage, 2>& x, const Tensor<Out, 2>& y,
           const Tensor<Storage, 2>& low) const;

  /// dx += scale (dy B) A. dy (T, out), dx (T, in).
  void add_input_gradient(const Exec& exec, const Tensor<const Storage, 2>& dy,
                          const Tensor<Storage, 2>& dx, const Tensor<Storage, 2>& low) const;

  /// Those of A and B.
  void add_gradients(const Exec& exec, const Tensor<const Storage, 2>& dy,
                     const Tensor<const Storage, 2>& x, const Tensor<Storage, 2>& low) const;

 private:
  /// scale x A^T and scale dy B, both (T, r), in `low`.
  Tensor<Storage, 2> down(const Exec& exec, const Tensor<const Storage, 2>& x,
                          const Tensor<Storage, 2>& low) const;
  Tensor<Storage, 2> down_gradient(const Exec& exec, const Tensor<const Storage, 2>& dy,
                                   const Tensor<Storage, 2>& low) const;

  double scale_;
  Weight<Storage, 2> a_;  // (r, in)
  Weight<Storage, 2> b_;  // (out, r)
};

}  // namespace qnext
