// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/matmul.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "parallel/process_grid.hpp"

#include <string>

namespace qnext {

/// Zero-centred RMS norm over the last extent (Qwen3NextRMSNorm):
///
///     y = x r (1 + w),   r = 1 / sqrt(mean(x^2) + epsilon)
///
/// All in Accum<Storage>, rounded once. The weight starts at zero. T rows of width D. `In` is
/// Accum<Storage> for the residual stream, Storage for the input of another layer.
template <class Storage>
class RmsNorm {
 public:
  using Real = Accum<Storage>;

  struct Work {
    Tensor<Real, 2> partial;  // (row blocks, D)  sums of the weight gradient
  };

  RmsNorm(ParameterTable& table, const std::string& name, int width, double epsilon,
          const ProcessGrid& grid = {});

  Work reserve_work(Arena& arena, int T) const;

  /// x, y (T, D); scale (T) keeps r for backward, or has no elements. y may be x.
  template <class In>
  void forward(const Exec& exec, const Tensor<const In, 2>& x, const Tensor<Storage, 2>& y,
               const Tensor<Real, 1>& scale) const;

  /// With u = dy (1 + w), n = x r:  dx = r (u - n mean(u n)), replaced or added; dw += sum(dy n).
  template <class In>
  void backward(const Exec& exec, const Tensor<const Storage, 2>& dy, const Tensor<const In, 2>& x,
                const Tensor<const Real, 1>& scale, const Tensor<In, 2>& dx, Write write,
                const Work& work) const;

 private:
  int width_;
  double epsilon_;
  Weight<Real, 1> weight_;  // (D)
};

}  // namespace qnext
