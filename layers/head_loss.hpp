// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/matmul.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"

#include <string>

namespace qnext {

/// The output head with the cross entropy fused into it: logits of the whole vocabulary exist for
/// one block of tokens at a time.
///
///     l_t = W h_t,   loss_t = log sum_v exp(l_tv) - l_t,label
///     d loss_t / d l_t = softmax(l_t) - onehot(label)
///
/// T tokens, D model width, V vocabulary. Tokens with the label -1 have no loss and no gradient.
template <class Storage>
class HeadLoss {
 public:
  using Real = Accum<Storage>;

  struct Work {
    Tensor<Real, 2> logits;      // (block, V)
    Tensor<Storage, 2> dlogits;  // (block, V)  the same memory where Storage is Real
    Tensor<Real, 1> loss;        // (T)         0 without a label
  };

  /// A head of its own, or, with `tied_to`, the embedding of that name.
  HeadLoss(ParameterTable& table, const std::string& name, int vocabulary, int width,
           double deviation, const std::string& tied_to);

  int vocabulary() const { return vocabulary_; }

  Work reserve_work(Arena& arena, int T) const;

  /// logits (T, V) = h W^T, for few tokens: decoding and comparisons.
  void logits(const Exec& exec, const Tensor<const Storage, 2>& h,
              const Tensor<Real, 2>& logits) const;

  /// sum += the losses of all tokens, a number on the device.
  void forward(const Exec& exec, const Tensor<const Storage, 2>& h,
               const Tensor<const int, 1>& labels, const Tensor<double, 0>& sum,
               const Work& work) const;

  /// The same, and dh = scale d sum / dh, replaced or added, and the gradient of W added.
  void forward_backward(const Exec& exec, const Tensor<const Storage, 2>& h,
                        const Tensor<const int, 1>& labels, double scale,
                        const Tensor<double, 0>& sum, const Tensor<Storage, 2>& dh, Write write,
                        const Work& work) const;

 private:
  int vocabulary_;
  int width_;
  Weight<Storage, 2> weight_;  // (V, D)
};

}  // namespace qnext
