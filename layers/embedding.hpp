// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "parallel/row_split.hpp"

#include <string>

namespace qnext {

/// One row of a (vocabulary, D) matrix for each token, widened; no scaling, no positions.
///
/// Tensor ranks divide the vocabulary. Each looks all tokens up in its own part, and the sum of
/// what they find, of which one is not zero, goes to the rank that holds the row.
template <class Storage>
class Embedding {
 public:
  using Real = Accum<Storage>;

  /// Empty for a rank alone.
  struct Work {
    RowSplit split;
    Tensor<Storage, 2> found;     // (T, D)
    Tensor<Storage, 1> received;  // (ranks - 1) rows D
    Tensor<Real, 2> gradient;     // (T, D)
  };

  /// Of a pipeline, the last stage may need a copy.
  enum class Copies { one, first_of_two, last_of_two };

  Embedding(ParameterTable& table, const std::string& name, int vocabulary, int width,
            double deviation, const ProcessGrid& grid = {}, Copies copies = Copies::one);

  const Weight<Storage, 2>& weight() const { return weight_; }

  Work reserve_work(Arena& arena, const MicrobatchShape& shape) const;

  /// All tokens (T) in [0, vocabulary), y (rows, D) of this rank.
  void forward(const Exec& exec, const Tensor<const int, 1>& tokens, const Tensor<Real, 2>& y,
               const Work& work = {}) const;

  /// dW(tokens(t)) += dy(t), in the order of t.
  void backward(const Exec& exec, const Tensor<const int, 1>& tokens,
                const Tensor<const Real, 2>& dy, const Work& work = {}) const;

 private:
  ProcessGrid grid_;
  int width_;
  int first_;  // token of row 0
  Weight<Storage, 2> weight_;
};

}  // namespace qnext
