// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "layers/kernels/grouped_projection.hpp"
#include "parallel/process_grid.hpp"

#include <string>

namespace qnext {

/// RMS norm of each value head, then a gate (Qwen3NextRMSNormGated):
///
///     y = w x r silu(z),   r = 1 / sqrt(mean(x^2) + epsilon)
///
/// The weight is plain, not zero-centred: it starts at one, and is shared by all heads. z is read
/// where the projection left it. All in Accum<Storage>, rounded once. T tokens, H heads of width V.
template <class Storage>
class GatedRmsNorm {
 public:
  using Real = Accum<Storage>;

  struct Work {
    Tensor<Real, 2> partial;  // (token blocks, V)  sums of the weight gradient
  };

  GatedRmsNorm(ParameterTable& table, const std::string& name, const GroupedProjection& layout,
               double epsilon, const ProcessGrid& grid);

  Work reserve_work(Arena& arena, int T) const;

  /// x (T, H, V), qkvz (T, G(2K+2RV)), y (T, HV).
  void forward(const Exec& exec, const Tensor<const Storage, 3>& x,
               const Tensor<const Storage, 2>& qkvz, const Tensor<Storage, 2>& y) const;

  /// With n = x r and u = dy w silu(z):  dx = r (u - n mean(u n)), dz = dy w n silu'(z) into its
  /// columns of dqkvz, dw += sum(dy silu(z) n). Also computes y again, for the gradient of the
  /// projection behind it. dx may be dy's memory.
  void backward(const Exec& exec, const Tensor<const Storage, 2>& dy,
                const Tensor<const Storage, 3>& x, const Tensor<const Storage, 2>& qkvz,
                const Tensor<Storage, 3>& dx, const Tensor<Storage, 2>& dqkvz,
                const Tensor<Storage, 2>& y, const Work& work) const;

 private:
  GroupedProjection layout_;
  double epsilon_;
  Weight<Real, 1> weight_;  // (V)
};

}  // namespace qnext
