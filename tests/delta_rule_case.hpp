// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "layers/kernels/delta_rule.hpp"
#include "tests/reference/delta_rule.hpp"
#include "tests/support.hpp"

#include <cmath>
#include <vector>

namespace qnext::test {

/// Divides rows of length `width` by their length.
inline std::vector<double> unit_rows(std::vector<double> values, int width, double scale = 1.0) {
  for (std::size_t begin = 0; begin < values.size(); begin += width) {
    double squares = 0.0;
    for (int i = 0; i < width; ++i) {
      squares += values[begin + i] * values[begin + i];
    }
    for (int i = 0; i < width; ++i) {
      values[begin + i] *= scale / std::sqrt(squares);
    }
  }
  return values;
}

/// Operands as the layer makes them. Every seventh log decay is -100, every fifth is 0, every sixth
/// beta is 0 and every eleventh 1: exp of a sum overflows where a difference does not.
inline reference::DeltaRuleOperands delta_rule_operands(const reference::DeltaRuleShape& n,
                                                        std::uint64_t seed, bool extreme = true) {
  reference::DeltaRuleOperands in{
      .q = unit_rows(uniform(n.T() * n.G * n.K, -1, 1, seed), n.K, 1.0 / std::sqrt(n.K)),
      .k = unit_rows(uniform(n.T() * n.G * n.K, -1, 1, seed + 1), n.K),
      .v = uniform(n.T() * n.H * n.V, -1, 1, seed + 2),
      .log_decay = uniform(n.T() * n.H, -0.3, 0, seed + 3),
      .beta = uniform(n.T() * n.H, 0, 1, seed + 4),
      .initial = uniform(n.N() * n.H * n.K * n.V, -1, 1, seed + 5),
  };
  for (std::size_t i = 0; extreme && i < in.beta.size(); ++i) {
    in.log_decay[i] = i % 7 == 3 ? -100.0 : i % 5 == 0 ? 0.0 : in.log_decay[i];
    in.beta[i] = i % 6 == 2 ? 0.0 : i % 11 == 4 ? 1.0 : in.beta[i];
  }
  return in;
}

/// A delta rule on the device: operands, NaN-filled results, work.
template <class Storage>
struct DeltaRuleCase {
  using Real = Accum<Storage>;

  reference::DeltaRuleShape n;
  int chunk;
  Documents documents;
  DeltaRuleInput<Storage> in;
  Tensor<Real, 4> initial, final, dinitial, dfinal;
  Tensor<Storage, 3> out, dout;
  DeltaRuleGradient<Storage> gradient;
  Arena arena;
  DeltaRuleWork<Real> work;

  DeltaRuleCase(const reference::DeltaRuleShape& shape, const reference::DeltaRuleOperands& from,
                int chunk_length = 64)
      : n(shape),
        chunk(chunk_length),
        documents(make_documents(n.lengths)),
        in{to_device<Storage>(from.q, n.T(), n.G, n.K), to_device<Storage>(from.k, n.T(), n.G, n.K),
           to_device<Storage>(from.v, n.T(), n.H, n.V), to_device<Real>(from.log_decay, n.T(), n.H),
           to_device<Real>(from.beta, n.T(), n.H)},
        out(nan_tensor<Storage>(n.T(), n.H, n.V)),
        gradient{nan_tensor<Storage>(n.T(), n.G, n.K), nan_tensor<Storage>(n.T(), n.G, n.K),
                 nan_tensor<Storage>(n.T(), n.H, n.V), nan_tensor<Real>(n.T(), n.H),
                 nan_tensor<Real>(n.T(), n.H)},
        arena(bytes()),
        work(reserve(arena)) {
    poison(work.slots);
    if (!from.initial.empty()) {
      initial = to_device<Real>(from.initial, n.N(), n.H, n.K, n.V);
    }
    final = nan_tensor<Real>(n.N(), n.H, n.K, n.V);
    dinitial = nan_tensor<Real>(n.N(), n.H, n.K, n.V);
  }

  void forward() {
    delta_rule_chunked<Storage>(Exec{}, documents, chunk, in, initial, out, final, work);
  }

  /// `dfinal_values` may be empty.
  void backward(const std::vector<double>& dout_values, const std::vector<double>& dfinal_values) {
    dout = to_device<Storage>(dout_values, n.T(), n.H, n.V);
    if (!dfinal_values.empty()) {
      dfinal = to_device<Real>(dfinal_values, n.N(), n.H, n.K, n.V);
    }
    delta_rule_chunked_backward<Storage>(Exec{}, documents, chunk, in, initial, dout, dfinal,
                                         gradient, dinitial, work);
  }

 private:
  DeltaRuleWork<Real> reserve(Arena& from) const {
    return reserve_delta_rule_work<Storage>(from, {n.G, n.H, n.K, n.V, chunk},
                                            {.tokens = n.T(), .documents = n.N()});
  }
  std::int64_t bytes() const {
    Arena measuring;
    reserve(measuring);
    return measuring.peak();
  }
};

}  // namespace qnext::test
