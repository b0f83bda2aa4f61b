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

// The rows of the tokens that this rank knows, zero for the others.
template <class Storage>
struct Find {
  Tensor<const int, 1> tokens;
  Tensor<const Storage, 2> weight;
  Tensor<Storage, 2> found;
  int first;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const int v = tokens(t) - first;
    Storage* const out = &found(t, 0);
    if (v < 0 || v >= weight.extent_int(0)) {
      for_each_in(team, found.extent_int(1), [&](const int d) { out[d] = Storage(0.0f); });
      return;
    }
    const Storage* const row = &weight(v, 0);
    for_each_in(team, found.extent_int(1), [&](const int d) { out[d] = row[d]; });
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
  int first;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int D = dy.extent_int(1);
    const int d0 = team.league_rank() * strip;
    const int width = D - d0 < strip ? D - d0 : strip;
    for (int t = 0; t < dy.extent_int(0); ++t) {
      const int v = tokens(t) - first;
      if (v < 0 || v >= grad.extent_int(0)) {
        continue;
      }
      const Real* const row = &dy(t, d0);
      Real* const sum = &grad(v, d0);
      for_each_in(team, width, [&](const int d) { sum[d] += row[d]; });
    }
  }
};

}  // namespace

template <class Storage>
Embedding<Storage>::Embedding(ParameterTable& table, const std::string& name, int vocabulary,
                              int width, double deviation, const ProcessGrid& grid, Copies copies)
    : grid_(grid), width_(width) {
  const Shard shard = grid.tensor_part({vocabulary, width}, 0);
  first_ = static_cast<int>(shard.boxes.front().offset[0]);
  table.add({.name = name,
             .shard = shard,
             .init = Init::normal(deviation),
             .owner = copies != Copies::last_of_two,
             .on_two_stages = copies != Copies::one},
            weight_);
}

template <class Storage>
typename Embedding<Storage>::Work Embedding<Storage>::reserve_work(
    Arena& arena, const MicrobatchShape& shape) const {
  Work work;
  work.split = RowSplit(grid_, shape.tokens, shape.sequences);
  if (work.split.alone()) {
    return work;
  }
  const int D = width_;
  Arena::Overlay directions(arena);
  directions.add([&] {
    work.found = arena.reserve<Storage, 2>("embedding_found", shape.tokens, D);
    work.received = arena.reserve<Storage, 1>("embedding_received",
                                              std::int64_t{1} * work.split.received_rows() * D);
  });
  directions.add(
      [&] { work.gradient = arena.reserve<Real, 2>("embedding_gradient", shape.tokens, D); });
  return work;
}

template <class Storage>
void Embedding<Storage>::forward(const Exec& exec, const Tensor<const int, 1>& tokens,
                                 const Tensor<Real, 2>& y, const Work& work) const {
  if (!work.split.alone()) {
    Kokkos::parallel_for("embedding::find", row_policy(exec, tokens.extent_int(0)),
                         Find<Storage>{tokens, weight_.value, work.found, first_});
    work.split.template sum<Storage, Real>(exec, work.found, work.received, y);
    return;
  }
  Kokkos::parallel_for("embedding::forward", row_policy(exec, y.extent_int(0)),
                       Gather<Storage>{tokens, weight_.value, y});
}

template <class Storage>
void Embedding<Storage>::backward(const Exec& exec, const Tensor<const int, 1>& tokens,
                                  const Tensor<const Real, 2>& dy, const Work& work) const {
  if (!weight_.trained()) {
    return;
  }
  Tensor<const Real, 2> all = dy;
  if (!work.split.alone()) {
    work.split.template gather<Real>(exec, dy, work.gradient);
    all = work.gradient;
  }
  constexpr int strip = ScatterAdd<Real>::strip;
  const int strips = (dy.extent_int(1) + strip - 1) / strip;
  Kokkos::parallel_for("embedding::backward", row_policy(exec, strips),
                       ScatterAdd<Real>{tokens, all, weight_.grad, first_});
}

template class Embedding<bf16>;
template class Embedding<float>;
template class Embedding<double>;

}  // namespace qnext
