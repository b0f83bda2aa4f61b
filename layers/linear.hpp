// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/matmul.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"

namespace qnext {

/// y = x W^T with W (out, in), as the released files store it, or with the rows or columns of it
/// that this rank holds: with columns, y is a part of the sum over ranks. No bias.
template <class Storage>
class Linear {
 public:
  /// Registers the weight.
  Linear(ParameterTable& table, const Parameter& parameter);

  int in() const { return in_; }
  int out() const { return out_; }
  const Weight<Storage, 2>& weight() const { return weight_; }

  /// x (T, in), y (T, out). Out is Storage or Accum<Storage>.
  template <class Out>
  void forward(const Exec& exec, const Tensor<const Storage, 2>& x, const Tensor<Out, 2>& y) const;

  /// dx = dy W, or dx += that. dy (T, out), dx (T, in).
  void backward_input(const Exec& exec, const Tensor<const Storage, 2>& dy,
                      const Tensor<Storage, 2>& dx, Write write = Write::replace) const;

  /// dW += dy^T x.
  void backward_weight(const Exec& exec, const Tensor<const Storage, 2>& dy,
                       const Tensor<const Storage, 2>& x) const;

 private:
  int in_;
  int out_;
  Weight<Storage, 2> weight_;
};

}  // namespace qnext
