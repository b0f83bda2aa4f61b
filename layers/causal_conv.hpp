// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "layers/kernels/grouped_projection.hpp"
#include "layers/kernels/query_key_value.hpp"
#include "parallel/process_grid.hpp"

#include <string>

namespace qnext {

/// Depthwise causal convolution over the channels of q, k and v, SiLU, and the L2 norm of each
/// head of q and k:
///
///     p_t = sum_j w_j u_{t - taps + 1 + j},   y = silu(p)
///     q = y / sqrt(|y|^2 + 1e-6) / sqrt(K),   k = y / sqrt(|y|^2 + 1e-6),   v = y
///
/// u is read where the projection left it; before the begin of a document it is zero or the tail
/// of the piece before. All in Accum<Storage>, rounded once. Nothing is saved: backward computes p
/// again, which costs less than reading it.
template <class Storage>
class CausalConv {
 public:
  using Real = Accum<Storage>;

  struct Work {
    Tensor<Real, 3> weight;   // (G, taps, 2K+RV)
    Tensor<Real, 4> partial;  // (token blocks, G, taps, 2K+RV)  sums of the weight gradient
  };

  /// `layout` is that of this rank, which holds three boxes of the channels: of q, of k and of v.
  CausalConv(ParameterTable& table, const std::string& name, const GroupedProjection& layout,
             int taps, const ProcessGrid& grid);

  Work reserve_work(Arena& arena, int T) const;

  /// qkvz (T, G(2K+2RV)). A tail (N, taps-1, 2GK+HV) holds the last inputs of a document, oldest
  /// first, at the row that `documents` says. Empty `initial`: zero; empty `final`: not wanted.
  /// `final` may be `initial`.
  void forward(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& qkvz,
               const Tensor<const Storage, 3>& initial, const QueryKeyValue<Storage>& out,
               const Tensor<Storage, 3>& final, const Work& work) const;

  /// The tails of documents that began here, or left more than taps - 2 tokens here: what `final`
  /// of forward is, without the forward.
  void tails(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& qkvz,
             const Tensor<Storage, 3>& tails) const;

  /// dqkvz += `dfinal` of backward, behind a backward without it: what the next piece of a document
  /// sends back need not be known before.
  void add_tail_gradient(const Exec& exec, const Documents& documents,
                         const Tensor<const Storage, 3>& dtails,
                         const Tensor<Storage, 2>& dqkvz) const;

  /// forward for a few tokens of each document, whose tails go on from its initial row to its final
  /// row; where each is kept, that of token i to the row final + i. These may be the same rows.
  void step(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& qkvz,
            const Tensor<Storage, 3>& tails, const QueryKeyValue<Storage>& out, Keep keep) const;

  /// Writes the columns of q, k and v of dqkvz, adds to the gradient of the weight.
  void backward(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& qkvz,
                const Tensor<const Storage, 3>& initial, const QueryKeyValue<Storage>& dout,
                const Tensor<const Storage, 3>& dfinal, const Tensor<Storage, 2>& dqkvz,
                const Tensor<Storage, 3>& dinitial, const Work& work) const;

 private:
  GroupedProjection layout_;
  int taps_;
  Weight<Storage, 3> weight_;  // (2GK+HV, 1, taps)
};

}  // namespace qnext
