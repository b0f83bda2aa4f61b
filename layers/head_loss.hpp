// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "layers/linear.hpp"
#include "layers/shared_rows.hpp"

#include <string>

namespace qnext {

/// The output head with the cross entropy fused into it: logits of the whole vocabulary exist for
/// one block of tokens at a time.
///
///     l_t = W h_t,   loss_t = log sum_v exp(l_tv) - l_t,label
///     d loss_t / d l_t = softmax(l_t) - onehot(label)
///
/// T tokens, D model width, V vocabulary. Tokens with the label -1 have no loss and no gradient.
///
/// Tensor ranks divide the vocabulary. V counts the tokens of this rank, which computes the largest
/// logit m_r, s_r = sum_v exp(l_tv - m_r) and the logit of the label if it knows it; of those of
/// all ranks, in their order,
///
///     m = max_r m_r,   log sum exp = m + log sum_r s_r exp(m_r - m)
///
/// so that every rank knows every loss.
template <class Storage>
class HeadLoss {
 public:
  using Real = Accum<Storage>;

  struct Work {
    SharedRows<Storage> rows;
    Tensor<Real, 2> statistics;  // (ranks block, 3)  m_r, s_r, logit of the label; empty if alone
    Tensor<Real, 2> logits;      // (block, V)
    Tensor<Storage, 2> dlogits;  // (block, V)  the same memory where Storage is Real
    Tensor<Real, 1> loss;        // (T)         0 without a label
    Tensor<Storage, 2> low;      // (block, r)  of the adapter; empty without
  };

  /// A head of its own, or, with `tied_to`, the embedding of that name.
  HeadLoss(ParameterTable& table, const std::string& name, int vocabulary, int width,
           double deviation, const std::string& tied_to, const ProcessGrid& grid = {});

  Work reserve_work(Arena& arena, const MicrobatchShape& shape) const;

  /// How many tokens of the vocabulary this rank knows, and the first of them.
  int tokens_of_rank() const { return vocabulary_; }
  int first_token() const { return first_; }

  /// The rows (T, D) of all tensor ranks from those of this one; in the work until its next use.
  Tensor<const Storage, 2> all_rows(const Exec& exec, const Tensor<const Storage, 2>& h,
                                    const Work& work) const {
    return work.rows.input(exec, h);
  }

  /// logits (T, V) = h W^T, for few tokens: decoding and comparisons. An adapter wants the memory
  /// low (T, r).
  void logits(const Exec& exec, const Tensor<const Storage, 2>& h, const Tensor<Real, 2>& logits,
              const Tensor<Storage, 2>& low = {}) const;

  /// h (rows, D), all labels (T): sum += the losses of all tokens, a number on the device.
  void forward(const Exec& exec, const Tensor<const Storage, 2>& h,
               const Tensor<const int, 1>& labels, const Tensor<double, 0>& sum,
               const Work& work) const;

  /// The same, and dh = scale d sum / dh, replaced or added, and the gradient of W added.
  void forward_backward(const Exec& exec, const Tensor<const Storage, 2>& h,
                        const Tensor<const int, 1>& labels, double scale,
                        const Tensor<double, 0>& sum, const Tensor<Storage, 2>& dh, Write write,
                        const Work& work) const;

 private:
  /// The losses of the tokens `first` ... of a block, and with a gradient that of its logits.
  void cross_entropy(const Exec& exec, const Tensor<Real, 2>& logits,
                     const Tensor<const int, 1>& labels, int first, double scale,
                     bool with_gradient, const Work& work) const;

  ProcessGrid grid_;
  int width_;
  Linear<Storage> weight_;  // (V, D)
  AdapterConfig adapters_;  // none where the head has none
  int vocabulary_;          // of this rank
  int first_;               // token of row 0
};

}  // namespace qnext
