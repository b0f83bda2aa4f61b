// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "core/types.hpp"

#include <string>

namespace qnext {

/// One row of a (vocabulary, D) matrix for each token, widened; no scaling, no positions.
template <class Storage>
class Embedding {
 public:
  using Real = Accum<Storage>;

  Embedding(ParameterTable& table, const std::string& name, int vocabulary, int width,
            double deviation);

  const Weight<Storage, 2>& weight() const { return weight_; }

  /// tokens (T) in [0, vocabulary), y (T, D).
  void forward(const Exec& exec, const Tensor<const int, 1>& tokens,
               const Tensor<Real, 2>& y) const;

  /// dW(tokens(t)) += dy(t), in the order of t.
  void backward(const Exec& exec, const Tensor<const int, 1>& tokens,
                const Tensor<const Real, 2>& dy) const;

 private:
  Weight<Storage, 2> weight_;
};

}  // namespace qnext
