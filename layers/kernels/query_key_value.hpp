// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/math.hpp"
#include "core/team.hpp"
#include "core/types.hpp"
#include "layers/kernels/grouped_projection.hpp"

namespace qnext {

/// The tensors of a delta net that leave the convolution, or their gradients.
template <class T>
struct QueryKeyValue {
  Tensor<T, 3> q;  // (T, G, K)
  Tensor<T, 3> k;  // (T, G, K)
  Tensor<T, 3> v;  // (T, H, V)
};

template <class Real>
KOKKOS_FORCEINLINE_FUNCTION Real inverse_length(const RowTeam& team, const Real* y, int K) {
  const Real squares = sum_over<Real>(team, K, [&](const int c) { return y[c] * y[c]; });
  return Real(1) / sqrt(squares + Real(1e-6));
}

/// What the activated columns y (2K+RV) of token t and key head g leave: q and k of unit length, q
/// over sqrt(K), and v.
template <class Storage>
KOKKOS_FORCEINLINE_FUNCTION void store_columns(const RowTeam& team, const GroupedProjection& layout,
                                               int t, int g, const Accum<Storage>* y,
                                               const QueryKeyValue<Storage>& out) {
  using Real = Accum<Storage>;
  const int K = layout.K, R = layout.R;
  Storage* const q = &out.q(t, g, 0);
  Storage* const k = &out.k(t, g, 0);
  Storage* const v = &out.v(t, g * R, 0);
  const Real query_scale = Real(1) / sqrt(static_cast<Real>(K));
  const Real of_query = inverse_length(team, y, K) * query_scale;
  const Real of_key = inverse_length(team, y + K, K);
  for_each_in(team, K, [&](const int c) {
    q[c] = Storage(y[c] * of_query);
    k[c] = Storage(y[K + c] * of_key);
  });
  for_each_in(team, R * layout.V, [&](const int c) { v[c] = Storage(y[2 * K + c]); });
}

}  // namespace qnext
