// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/documents.hpp"
#include "core/types.hpp"
#include "layers/kernels/query_key_value.hpp"

namespace qnext {

/// What the kernels of layers/causal_conv.hpp read. The weights of a key head lie beside each
/// other, so that lanes run along its columns.
template <class Storage>
struct CausalConvInput {
  Documents documents;
  GroupedProjection layout;
  Tensor<const Storage, 2> qkvz;           // (T, G(2K+2RV))
  Tensor<const Storage, 3> initial;        // (N, taps - 1, 2GK+HV)  or empty: zeros
  Tensor<const Accum<Storage>, 3> weight;  // (G, taps, 2K+RV)
};

/// q, k and v of all tokens.
template <class Storage>
void causal_conv_forward(const Exec& exec, const CausalConvInput<Storage>& in,
                         const QueryKeyValue<Storage>& out);

/// Blocks of tokens whose sums of the weight gradient backward keeps apart.
int causal_conv_partial_blocks(int T);

/// dqkvz (T, G(2K+2RV)): the convolved columns are written. dfinal and dinitial (N, taps - 1,
/// 2GK+HV), or empty. partial (blocks, G, taps, 2K+RV): each block of tokens writes its own sums.
template <class Storage>
void causal_conv_backward(const Exec& exec, const CausalConvInput<Storage>& in,
                          const QueryKeyValue<Storage>& dout,
                          const Tensor<const Storage, 3>& dfinal, const Tensor<Storage, 2>& dqkvz,
                          const Tensor<Storage, 3>& dinitial,
                          const Tensor<Accum<Storage>, 4>& partial);

/// tails (N, taps - 1, 2GK+HV): the last inputs of each document. They may be `initial`.
template <class Storage>
void causal_conv_tails(const Exec& exec, const Documents& documents,
                       const GroupedProjection& layout, const Tensor<const Storage, 2>& qkvz,
                       const Tensor<const Storage, 3>& initial, const Tensor<Storage, 3>& tails);

/// dqkvz += what comes back for the last inputs of each document, dtails (N, taps - 1, 2GK+HV).
template <class Storage>
void causal_conv_add_tail_gradient(const Exec& exec, const Documents& documents,
                                   const GroupedProjection& layout,
                                   const Tensor<const Storage, 3>& dtails,
                                   const Tensor<Storage, 2>& dqkvz);

}  // namespace qnext
