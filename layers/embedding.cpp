// SPDX-License-Identifier: Apache-2.0
#include "layers/embedding.hpp"

#include "core/team.hpp"

namespace qnext {
namespace {

template <class Storage>
struct Gather {
  Tensor<const int, 1> tokens;
  Tensor<const Storage, 2> weight;
  Tensor<Accum<Storage>, 2> y;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const Storage* const row = &weight(tokens(t), 0);
    Accum<Storage>* const out = &y(t, 0);
    for_each_in(team, y.extent_int(1),
                [&](const int d) { out[d] = static_cast<Accum<Storage>>(row[d]); });
  }
};

// Tokens repeat, so that two teams could meet in a row of dW. A team therefore owns a strip of
// columns and walks all tokens in their order: no atomics, and the same sum whatever the number of
// teams.
template <class Real>
struct ScatterAdd {
  static constexpr int strip = 128;

  Tensor<const int, 1> tokens;
  Tensor<const Real, 2> dy;
  Tensor<Real, 2> grad;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int D = dy.extent_int(1);
    const int d0 = team.league_rank() * strip;
    const int width = D - d0 < strip ? D - d0 : strip;
    for (int t = 0; t < dy.extent_int(0); ++t) {
      const Real* const row = &dy(t, d0);
      Real* const sum = &grad(tokens(t), d0);
      for_each_in(team, width, [&](const int d) { sum[d] += row[d]; });
    }
  }
};

}  // namespace

template <class Storage>
Embedding<Storage>::Embedding(ParameterTable& table, const std::string& name, int vocabulary,
                              int width, double deviation) {
  table.add(
      {.name = name, .shard = Shard::whole({vocabulary, width}), .init = Init::normal(deviation)},
      weight_);
}

template <class Storage>
void Embedding<Storage>::forward(const Exec& exec, const Tensor<const int, 1>& tokens,
                                 const Tensor<Real, 2>& y) const {
  Kokkos::parallel_for("embedding::forward", row_policy(exec, y.extent_int(0)),
                       Gather<Storage>{tokens, weight_.value, y});
}

template <class Storage>
void Embedding<Storage>::backward(const Exec& exec, const Tensor<const int, 1>& tokens,
                                  const Tensor<const Real, 2>& dy) const {
  constexpr int strip = ScatterAdd<Real>::strip;
  const int strips = (dy.extent_int(1) + strip - 1) / strip;
  Kokkos::parallel_for("embedding::backward", row_policy(exec, strips),
                       ScatterAdd<Real>{tokens, dy, weight_.grad});
}

template class Embedding<bf16>;
template class Embedding<float>;
template class Embedding<double>;

}  // namespace qnext
