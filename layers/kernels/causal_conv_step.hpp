// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/documents.hpp"
#include "core/types.hpp"
#include "layers/kernels/query_key_value.hpp"

namespace qnext {

/// The convolution of layers/causal_conv.hpp for a few tokens of each document, behind tails that
/// go from its initial row to its final row; where each is kept, that of token i to the row
/// final + i. These may be the same rows. One kernel, because so few tokens are over sooner than
/// another one begins.
template <class Storage>
struct CausalConvStep {
  Documents documents;
  GroupedProjection layout;
  Tensor<const Storage, 3> weight;  // (2GK+HV, 1, taps)
  Tensor<const Storage, 2> qkvz;    // (T, G(2K+2RV))
  Tensor<Storage, 3> tails;         // (rows, taps - 1, 2GK+HV)
  QueryKeyValue<Storage> out;
  Keep keep;

  void launch(const Exec& exec) const;
};

}  // namespace qnext
