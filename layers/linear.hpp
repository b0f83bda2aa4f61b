// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/matmul.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "layers/adapter.hpp"
#include "parallel/process_grid.hpp"

#include <memory>

namespace qnext {

/// y = x W^T with W (out, in), as the released files store it, or with the rows or columns of it
/// that this rank holds: with columns, y is a part of the sum over ranks. No bias. Where the table
/// says so, a low-rank adapter is added; `low` is its memory, which Adapter::reserve_low gives.
template <class Storage>
class Linear {
 public:
  /// Registers the weight and, where it has one, its adapter.
  Linear(ParameterTable& table, const ProcessGrid& grid, const Parameter& parameter);

  int in() const { return in_; }
  int out() const { return out_; }
  const Weight<Storage, 2>& weight() const { return weight_; }
  bool has_adapter() const { return adapter_ != nullptr; }
  const Adapter<Storage>& adapter() const { return *adapter_; }

  /// Whether backward_weight adds to anything.
  bool trained() const { return has_adapter() || weight_.trained(); }

  /// x (T, in), y (T, out). Out is Storage or Accum<Storage>.
  template <class Out>
  void forward(const Exec& exec, const Tensor<const Storage, 2>& x, const Tensor<Out, 2>& y,
               const Tensor<Storage, 2>& low) const;

  /// dx = dy W, or dx += that. dy (T, out), dx (T, in).
  void backward_input(const Exec& exec, const Tensor<const Storage, 2>& dy,
                      const Tensor<Storage, 2>& dx, const Tensor<Storage, 2>& low,
                      Write write = Write::replace) const;

  /// dW += dy^T x, or the gradients of the adapter.
  void backward_weight(const Exec& exec, const Tensor<const Storage, 2>& dy,
                       const Tensor<const Storage, 2>& x, const Tensor<Storage, 2>& low) const;

 private:
  int in_;
  int out_;
  Weight<Storage, 2> weight_;
  std::unique_ptr<Adapter<Storage>> adapter_;  // null: none
};

}  // namespace qnext
