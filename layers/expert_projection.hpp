// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/matmul.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "layers/expert_adapter.hpp"

#include <memory>

namespace qnext {

/// y = x W_e^T for the rows x of each expert, with W (E, out, in), or the experts of it that this
/// rank holds. R rows in the order of their experts, which begin at offset (E + 1). Where the table
/// says so, low-rank adapters are added; `low` (R, r) is their memory.
template <class Storage>
class ExpertProjection {
 public:
  /// Registers the weight and, where it has them, its adapters.
  ExpertProjection(ParameterTable& table, const Parameter& parameter);

  const Weight<Storage, 3>& weight() const { return weight_; }
  bool has_adapter() const { return adapter_ != nullptr; }

  /// Whether backward_weight wants x and adds to anything.
  bool trained() const { return has_adapter() || weight_.trained(); }

  /// x (R, in), y (R, out).
  void forward(const Exec& exec, const Tensor<const int, 1>& offset,
               const Tensor<const Storage, 2>& x, const Tensor<Storage, 2>& y,
               const Tensor<Storage, 2>& low) const;

  /// dx = dy W. dy (R, out), dx (R, in).
  void backward_input(const Exec& exec, const Tensor<const int, 1>& offset,
                      const Tensor<const Storage, 2>& dy, const Tensor<Storage, 2>& dx,
                      const Tensor<Storage, 2>& low) const;

  /// dW += dy^T x, or the gradients of the adapters.
  void backward_weight(const Exec& exec, const Tensor<const int, 1>& offset,
                       const Tensor<const Storage, 2>& dy, const Tensor<const Storage, 2>& x,
                       const Tensor<Storage, 2>& low) const;

 private:
  Weight<Storage, 3> weight_;
  std::unique_ptr<ExpertAdapter<Storage>> adapter_;  // null: none
};

}  // namespace qnext
