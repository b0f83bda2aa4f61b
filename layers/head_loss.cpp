// SPDX-License-Identifier: Apache-2.0
#include "layers/head_loss.hpp"

#include "core/math.hpp"
#include "core/team.hpp"

#include <algorithm>

namespace qnext {
namespace {

// 32 MB of float logits, but never less than 128 rows: below that the product with W is bound by
// reading W.
constexpr std::int64_t block_elements = std::int64_t{1} << 23;
constexpr int least_block = 128;

// A team takes a token of the block. dlogits may be logits.
template <class Storage>
struct CrossEntropy {
  using Real = Accum<Storage>;

  Tensor<const Real, 2> logits;  // (block, V)
  Tensor<const int, 1> labels;   // (T)
  Tensor<Real, 1> loss;          // (T)
  Tensor<Storage, 2> dlogits;    // (block, V)
  int first;                     // token of row 0
  Real scale;
  bool with_gradient;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int V = logits.extent_int(1);
    const int label = labels(first + team.league_rank());
    const Real* const row = &logits(team.league_rank(), 0);
    Storage* const gradient = &dlogits(team.league_rank(), 0);
    if (label < 0) {
      Kokkos::single(Kokkos::PerTeam(team), [&] { loss(first + team.league_rank()) = 0; });
      if (with_gradient) {
        for_each_in(team, V, [&](const int v) { gradient[v] = Storage(0.0f); });
      }
      return;
    }
    const Real largest =
        max_over<Real>(team, V, -Real(HUGE_VAL), [&](const int v) { return row[v]; });
    const Real total = sum_over<Real>(team, V, [&](const int v) { return exp(row[v] - largest); });
    const Real label_logit = row[label];
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      loss(first + team.league_rank()) = log(total) + (largest - label_logit);
    });
    if (!with_gradient) {
      return;
    }
    const Real factor = scale / total;
    team.team_barrier();
    for_each_in(team, V,
                [&](const int v) { gradient[v] = Storage(exp(row[v] - largest) * factor); });
    team.team_barrier();
    Kokkos::single(Kokkos::PerTeam(team),
                   [&] { gradient[label] = Storage(exp(label_logit - largest) * factor - scale); });
  }
};

// What one rank knows of the logits of a token. A team takes a token of the block.
template <class Storage>
struct PartStatistics {
  using Real = Accum<Storage>;

  Tensor<const Real, 2> logits;  // (block, V)
  Tensor<const int, 1> labels;   // (T)
  Tensor<Real, 2> statistics;    // (block, 3)
  int first;                     // token of row 0 of the block
  int first_token;               // of the vocabulary

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int i = team.league_rank();
    const int V = logits.extent_int(1);
    const int label = labels(first + i) - first_token;
    const Real* const row = &logits(i, 0);
    const Real largest =
        max_over<Real>(team, V, -Real(HUGE_VAL), [&](const int v) { return row[v]; });
    const Real total = sum_over<Real>(team, V, [&](const int v) { return exp(row[v] - largest); });
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      statistics(i, 0) = largest;
      statistics(i, 1) = total;
      statistics(i, 2) = label >= 0 && label < V ? row[label] : Real(0);
    });
  }
};

// The losses from the statistics of all ranks, and the gradient of this rank's logits. A team takes
// a token of the block. dlogits may be logits.
template <class Storage>
struct PartCrossEntropy {
  using Real = Accum<Storage>;

  Tensor<const Real, 2> logits;      // (block, V)
  Tensor<const int, 1> labels;       // (T)
  Tensor<const Real, 2> statistics;  // (ranks block, 3)
  Tensor<Real, 1> loss;              // (T)
  Tensor<Storage, 2> dlogits;        // (block, V)
  int first;
  int first_token;
  Real scale;
  bool with_gradient;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int i = team.league_rank(), block = team.league_size();
    const int V = logits.extent_int(1);
    const int ranks = statistics.extent_int(0) / block;
    const bool labelled = labels(first + i) >= 0;
    Real largest = statistics(i, 0), total = 0, label_logit = 0;
    for (int r = 1; r < ranks; ++r) {
      largest = max(largest, statistics(r * block + i, 0));
    }
    for (int r = 0; r < ranks; ++r) {
      total += statistics(r * block + i, 1) * exp(statistics(r * block + i, 0) - largest);
      label_logit += statistics(r * block + i, 2);
    }
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      loss(first + i) = labelled ? log(total) + (largest - label_logit) : Real(0);
    });
    if (!with_gradient) {
      return;
    }
    const Real* const row = &logits(i, 0);
    Storage* const gradient = &dlogits(i, 0);
    const Real factor = labelled ? scale / total : Real(0);
    for_each_in(team, V,
                [&](const int v) { gradient[v] = Storage(exp(row[v] - largest) * factor); });
    const int label = labels(first + i) - first_token;
    if (!labelled || label < 0 || label >= V) {
      return;
    }
    team.team_barrier();
    Kokkos::single(Kokkos::PerTeam(team),
                   [&] { gradient[label] = Storage(exp(label_logit - largest) * factor - scale); });
  }
};

// One team adds up all tokens: the order depends on T alone.
template <class Real>
struct SumLosses {
  Tensor<const Real, 1> loss;
  Tensor<double, 0> sum;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const double total = sum_over<double>(
        team, loss.extent_int(0), [&](const int t) { return static_cast<double>(loss(t)); });
    Kokkos::single(Kokkos::PerTeam(team), [&] { sum() += total; });
  }
};

template <class T>
Tensor<T, 2> rows(const Tensor<T, 2>& all, int first, int count) {
  return Tensor<T, 2>(all.data() + std::int64_t{first} * all.extent_int(1), count, all.extent(1));
}

Shard part_of(const ProcessGrid& grid, const std::string& name, int vocabulary, int width) {
  require(vocabulary >= grid.degrees.tensor, name + ": vocabulary = " + std::to_string(vocabulary) +
                                                 ", wanted at least the tensor degree " +
                                                 std::to_string(grid.degrees.tensor));
  return grid.tensor_part({vocabulary, width}, 0);
}

}  // namespace

template <class Storage>
HeadLoss<Storage>::HeadLoss(ParameterTable& table, const std::string& name, int vocabulary,
                            int width, double deviation, const std::string& tied_to,
                            const ProcessGrid& grid)
    : grid_(grid),
      width_(width),
      weight_(table, grid,
              {.name = name,
               .shard = part_of(grid, name, vocabulary, width),
               .init = Init::normal(deviation),
               .alias_of = tied_to}),
      adapters_(weight_.has_adapter() ? table.adapters() : AdapterConfig{}),
      vocabulary_(weight_.out()),
      first_(static_cast<int>(grid.tensor_part({vocabulary, width}, 0).boxes.front().offset[0])) {}

template <class Storage>
typename HeadLoss<Storage>::Work HeadLoss<Storage>::reserve_work(
    Arena& arena, const MicrobatchShape& shape) const {
  const int T = shape.tokens;
  const int fitting = static_cast<int>(block_elements / vocabulary_ / least_block * least_block);
  const int block = std::min(T, std::max(least_block, fitting));
  Work work;
  work.rows = SharedRows<Storage>::reserve(arena, grid_, shape, width_);
  if (!work.rows.alone()) {
    work.statistics =
        arena.reserve<Real, 2>("logit_statistics", work.rows.split().ranks() * block, 3);
  }
  work.logits = arena.reserve<Real, 2>("logits", block, vocabulary_);
  if constexpr (std::is_same_v<Storage, Real>) {
    work.dlogits = work.logits;
  } else {
    work.dlogits = arena.reserve<Storage, 2>("dlogits", block, vocabulary_);
  }
  work.loss = arena.reserve<Real, 1>("token_loss", T);
  work.low = Adapter<Storage>::reserve_low(arena, adapters_, block);
  return work;
}

template <class Storage>
void HeadLoss<Storage>::logits(const Exec& exec, const Tensor<const Storage, 2>& h,
                               const Tensor<Real, 2>& logits, const Tensor<Storage, 2>& low) const {
  weight_.template forward<Real>(exec, h, logits, low);
}

template <class Storage>
void HeadLoss<Storage>::cross_entropy(const Exec& exec, const Tensor<Real, 2>& logits,
                                      const Tensor<const int, 1>& labels, int first, double scale,
                                      bool with_gradient, const Work& work) const {
  const int count = logits.extent_int(0);
  const auto gradient = rows<Storage>(work.dlogits, 0, count);
  if (work.rows.alone()) {
    Kokkos::parallel_for("head_loss::cross_entropy", row_policy(exec, count),
                         CrossEntropy<Storage>{logits, labels, work.loss, gradient, first,
                                               static_cast<Real>(scale), with_gradient});
    return;
  }
  const RowSplit parts(grid_, work.rows.split().ranks() * count, 1);
  const auto all = rows<Real>(work.statistics, 0, parts.ranks() * count);
  const auto mine = rows<Real>(all, parts.token_rows().first, count);
  Kokkos::parallel_for("head_loss::statistics", row_policy(exec, count),
                       PartStatistics<Storage>{logits, labels, mine, first, first_});
  parts.template share<Real>(all);
  Kokkos::parallel_for("head_loss::part_cross_entropy", row_policy(exec, count),
                       PartCrossEntropy<Storage>{logits, labels, all, work.loss, gradient, first,
                                                 first_, static_cast<Real>(scale), with_gradient});
}

template <class Storage>
void HeadLoss<Storage>::forward(const Exec& exec, const Tensor<const Storage, 2>& h,
                                const Tensor<const int, 1>& labels, const Tensor<double, 0>& sum,
                                const Work& work) const {
  const auto all_h = work.rows.input(exec, h);
  const int T = all_h.extent_int(0);
  const int block = work.logits.extent_int(0);
  for (int first = 0; first < T; first += block) {
    const int count = std::min(block, T - first);
    const auto block_logits = rows<Real>(work.logits, 0, count);
    logits(exec, rows<const Storage>(all_h, first, count), block_logits, work.low);
    cross_entropy(exec, block_logits, labels, first, 0.0, false, work);
  }
  Kokkos::parallel_for("head_loss::sum", row_policy(exec, 1),
                       SumLosses<Real>{Tensor<const Real, 1>(work.loss.data(), T), sum});
}

template <class Storage>
void HeadLoss<Storage>::forward_backward(const Exec& exec, const Tensor<const Storage, 2>& h,
                                         const Tensor<const int, 1>& labels, double scale,
                                         const Tensor<double, 0>& sum, const Tensor<Storage, 2>& dh,
                                         Write write, const Work& work) const {
  const auto all_h = work.rows.input(exec, h);
  const auto all_dh = work.rows.partial(dh);
  const int T = all_h.extent_int(0);
  const int block = work.logits.extent_int(0);
  for (int first = 0; first < T; first += block) {
    const int count = std::min(block, T - first);
    const auto block_h = rows<const Storage>(all_h, first, count);
    const auto block_logits = rows<Real>(work.logits, 0, count);
    const auto block_gradient = rows<Storage>(work.dlogits, 0, count);
    logits(exec, block_h, block_logits, work.low);
    cross_entropy(exec, block_logits, labels, first, scale, true, work);
    weight_.backward_input(exec, block_gradient, rows<Storage>(all_dh, first, count), work.low,
                           work.rows.alone() ? write : Write::replace);
    weight_.backward_weight(exec, block_gradient, block_h, work.low);
  }
  work.rows.sum(exec, dh, write);
  Kokkos::parallel_for("head_loss::sum", row_policy(exec, 1),
                       SumLosses<Real>{Tensor<const Real, 1>(work.loss.data(), T), sum});
}

template class HeadLoss<bf16>;
template class HeadLoss<float>;
template class HeadLoss<double>;

}  // namespace qnext
