// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/experts_dispatch.hpp"

#include "core/team.hpp"

#include <cstdint>

namespace qnext {
namespace {

constexpr int block_tokens = 32;

/// How T tokens in S sequences are cut into blocks.
struct Blocks {
  int sequences;
  int sequence_tokens;
  int per_sequence;

  Blocks(int tokens, int sequence_count)
      : sequences(sequence_count),
        sequence_tokens(tokens / sequence_count),
        per_sequence((sequence_tokens + block_tokens - 1) / block_tokens) {}

  int count() const { return per_sequence * sequences; }

  KOKKOS_FUNCTION int begin(int block) const {
    return block / per_sequence * sequence_tokens + block % per_sequence * block_tokens;
  }
  KOKKOS_FUNCTION int end(int block) const {
    const int last = begin(block) + block_tokens;
    const int border = (block / per_sequence + 1) * sequence_tokens;
    return last < border ? last : border;
  }
};

// A team takes a block. A CPU thread walks through its choices; on a GPU the lanes share them, and
// whole numbers may be added in any order.
struct CountChoices {
  Blocks blocks;
  Tensor<const int, 2> selected;  // (T, K)
  Tensor<const int, 2> place;     // (T, K)
  Tensor<int, 2> count;           // (blocks, E)
  bool only_kept;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int block = team.league_rank();
    const int E = count.extent_int(1);
    const int K = selected.extent_int(1);
    int* const counts = &count(block, 0);
    for_each_in(team, E, [&](const int e) { counts[e] = 0; });
    team.team_barrier();
    const int first = blocks.begin(block) * K;
    const int* const expert = selected.data() + first;
    const int* const row = place.data() + first;
    const int choices = blocks.end(block) * K - first;
    if constexpr (device_backend) {
      Kokkos::parallel_for(Kokkos::TeamThreadRange(team, choices), [&](const int c) {
        if (!only_kept || row[c] >= 0) {
          Kokkos::atomic_increment(counts + expert[c]);
        }
      });
    } else {
      for (int c = 0; c < choices; ++c) {
        counts[expert[c]] += !only_kept || row[c] >= 0 ? 1 : 0;
      }
    }
  }
};

// The counts of the blocks become the choices of that expert in earlier blocks.
struct ScanBlocks {
  Blocks blocks;
  Tensor<int, 2> count;           // (blocks, E)
  Tensor<int, 1> offset;          // (E + 1)  offset(e + 1) takes the size of group e
  Tensor<int, 2> sequence_count;  // (S, E) or empty

  KOKKOS_FUNCTION void operator()(const int e) const {
    int sum = 0;
    for (int s = 0; s < blocks.sequences; ++s) {
      const int earlier = sum;
      for (int b = s * blocks.per_sequence; b < (s + 1) * blocks.per_sequence; ++b) {
        const int own = count(b, e);
        count(b, e) = sum;
        sum += own;
      }
      if (sequence_count.extent(0) != 0) {
        sequence_count(s, e) = sum - earlier;
      }
    }
    offset(e + 1) = sum;
  }
};

struct ScanExperts {
  Tensor<int, 1> offset;  // (E + 1)

  KOKKOS_FUNCTION void operator()(const int e, int& sum, const bool final) const {
    sum += e == 0 ? 0 : offset(e);
    if (final) {
      offset(e) = sum;
    }
  }
};

// A team takes a block and gives rows to its choices in their order. On a GPU each lane counts, for
// its own choices, those before it in the block that chose the same expert; whether a choice has a
// row does not change meanwhile.
struct PlaceChoices {
  Blocks blocks;
  Tensor<const int, 2> selected;  // (T, K)
  Tensor<int, 2> count;           // (blocks, E)
  Tensor<const int, 1> offset;    // (E + 1)
  Tensor<int, 2> place;           // (T, K)
  bool only_kept;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int block = team.league_rank();
    const int K = selected.extent_int(1);
    const int first = blocks.begin(block) * K;
    const int choices = blocks.end(block) * K - first;
    const int* const expert = selected.data() + first;
    int* const row = place.data() + first;
    int* const next = &count(block, 0);
    if constexpr (device_backend) {
      Kokkos::parallel_for(Kokkos::TeamThreadRange(team, choices), [&](const int c) {
        if (only_kept && row[c] < 0) {
          return;
        }
        int before = 0;
        for (int earlier = 0; earlier < c; ++earlier) {
          const bool counts = !only_kept || row[earlier] >= 0;
          before += counts && expert[earlier] == expert[c] ? 1 : 0;
        }
        row[c] = offset(expert[c]) + next[expert[c]] + before;
      });
    } else {
      for (int c = 0; c < choices; ++c) {
        if (!only_kept || row[c] >= 0) {
          row[c] = offset(expert[c]) + next[expert[c]]++;
        }
      }
    }
  }
};

// A team takes a block; a lane owns an expert.
template <class Real>
struct SumBlock {
  Blocks blocks;
  Routing<Real> routing;
  DispatchWork<Real> work;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int block = team.league_rank();
    const int E = work.probability.extent_int(1);
    Real* const sum = &work.probability(block, 0);
    for_each_in(team, E, [&](const int e) { sum[e] = 0; });
    for (int t = blocks.begin(block); t < blocks.end(block); ++t) {
      const Real* const p = &routing.probabilities(t, 0);
      for_each_in(team, E, [&](const int e) { sum[e] += p[e]; });
    }
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      Real squares = 0;
      for (int t = blocks.begin(block); t < blocks.end(block); ++t) {
        squares += routing.log_sum(t) * routing.log_sum(t);
      }
      work.square(block) = squares;
    });
  }
};

// A thread takes a sequence and an expert and adds the blocks in their order.
template <class Real>
struct SumSequence {
  Blocks blocks;
  DispatchWork<Real> work;
  RoutingStatistics<Real> statistics;

  KOKKOS_FUNCTION void operator()(const int i) const {
    const int E = statistics.probability.extent_int(1);
    const int s = i / E;
    const int e = i % E;
    Real probability = 0;
    Real square = 0;
    for (int b = s * blocks.per_sequence; b < (s + 1) * blocks.per_sequence; ++b) {
      probability += work.probability(b, e);
      square += work.square(b);
    }
    statistics.probability(s, e) = probability;
    if (e == 0) {
      statistics.square(s) = square;
    }
  }
};

// What a lane copies at once, where rows are whole numbers of it.
struct alignas(16) Chunk {
  std::uint64_t words[2];
};

// A team takes a token and copies it, n words, to its rows.
template <class Word>
struct SpreadTokens {
  const Word* x;
  Tensor<const int, 2> place;
  Word* rows;
  int n;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int t = team.league_rank();
    const Word* const from = x + std::int64_t{t} * n;
    for (int k = 0; k < place.extent_int(1); ++k) {
      const int r = place(t, k);
      if (r >= 0) {
        Word* const to = rows + std::int64_t{r} * n;
        for_each_in(team, n, [&](const int i) { to[i] = from[i]; });
      }
    }
  }
};

template <class Word>
void spread_words(const Exec& exec, const void* x, const Tensor<const int, 2>& place, void* rows,
                  int n) {
  Kokkos::parallel_for(
      "experts_dispatch::spread", row_policy(exec, place.extent_int(0)),
      SpreadTokens<Word>{static_cast<const Word*>(x), place, static_cast<Word*>(rows), n});
}

bool aligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % sizeof(Chunk) == 0;
}

// A team takes a token. A lane takes some neighbouring columns and keeps their sums in registers
// while it goes through the rows: many on a CPU for its vector units, one on a GPU.
template <class Storage>
struct GatherTokens {
  using Real = Accum<Storage>;
  static constexpr int columns = device_backend ? 1 : 64;

  Tensor<const Storage, 2> rows;
  Tensor<const int, 2> place;
  TokenTerms<Storage> terms;
  Tensor<Storage, 2> y;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int D = y.extent_int(1);
    const int t = team.league_rank();
    for_each_in(team, (D + columns - 1) / columns, [&](const int chunk) {
      const int first = chunk * columns;
      sum(t, first, D - first < columns ? D - first : columns);
    });
  }

  KOKKOS_FORCEINLINE_FUNCTION void sum(const int t, const int first, const int width) const {
    Real total[columns];
    Storage* const out = &y(t, first);
    for (int c = 0; c < width; ++c) {
      total[c] = terms.add ? static_cast<Real>(out[c]) : Real(0);
    }
    if (terms.matrix.extent(0) != 0) {
      const Real* const also = &terms.matrix(t, first);
      for (int c = 0; c < width; ++c) {
        total[c] += also[c];
      }
    }
    if (terms.scale.extent(0) != 0) {
      const Real scale = terms.scale(t);
      const Storage* const direction = &terms.direction(first);
      for (int c = 0; c < width; ++c) {
        total[c] += scale * static_cast<Real>(direction[c]);
      }
    }
    for (int k = 0; k < place.extent_int(1); ++k) {
      const int r = place(t, k);
      if (r >= 0) {
        const Storage* const row = &rows(r, first);
        for (int c = 0; c < width; ++c) {
          total[c] += static_cast<Real>(row[c]);
        }
      }
    }
    for (int c = 0; c < width; ++c) {
      out[c] = Storage(total[c]);
    }
  }
};

}  // namespace

template <class Real>
DispatchWork<Real> DispatchWork<Real>::reserve(Arena& arena, int tokens, int sequences,
                                               int experts) {
  const int blocks = Blocks(tokens, sequences).count();
  return {.count = arena.reserve<int, 2>("block_count", blocks, experts),
          .probability = arena.reserve<Real, 2>("block_probability", blocks, experts),
          .square = arena.reserve<Real, 1>("block_square", blocks)};
}

void sort_by_expert(const Exec& exec, int sequences, const Tensor<const int, 2>& selected,
                    Choices choices, const ExpertRows& rows, const Tensor<int, 2>& block_count,
                    const Tensor<int, 2>& sequence_count) {
  const Blocks blocks(selected.extent_int(0), sequences);
  const int E = rows.offset.extent_int(0) - 1;
  const bool only_kept = choices == Choices::kept;
  Kokkos::parallel_for("experts_dispatch::count", row_policy(exec, blocks.count()),
                       CountChoices{blocks, selected, rows.place, block_count, only_kept});
  Kokkos::parallel_for("experts_dispatch::scan_blocks", Kokkos::RangePolicy<Exec>(exec, 0, E),
                       ScanBlocks{blocks, block_count, rows.offset, sequence_count});
  Kokkos::parallel_scan("experts_dispatch::scan_experts", Kokkos::RangePolicy<Exec>(exec, 0, E + 1),
                        ScanExperts{rows.offset});
  Kokkos::parallel_for(
      "experts_dispatch::place", row_policy(exec, blocks.count()),
      PlaceChoices{blocks, selected, block_count, rows.offset, rows.place, only_kept});
}

template <class Real>
void sum_routing(const Exec& exec, const Routing<Real>& routing,
                 const RoutingStatistics<Real>& statistics, const DispatchWork<Real>& work) {
  const int S = statistics.probability.extent_int(0);
  const int E = statistics.probability.extent_int(1);
  const Blocks blocks(routing.probabilities.extent_int(0), S);
  Kokkos::parallel_for("experts_dispatch::sum_blocks", row_policy(exec, blocks.count()),
                       SumBlock<Real>{blocks, routing, work});
  Kokkos::parallel_for("experts_dispatch::sum_sequences", Kokkos::RangePolicy<Exec>(exec, 0, S * E),
                       SumSequence<Real>{blocks, work, statistics});
}

template <class Storage>
void spread_tokens(const Exec& exec, const Tensor<const Storage, 2>& x,
                   const Tensor<const int, 2>& place, const Tensor<Storage, 2>& rows) {
  const int bytes = x.extent_int(1) * static_cast<int>(sizeof(Storage));
  if (bytes % sizeof(Chunk) == 0 && aligned(x.data()) && aligned(rows.data())) {
    spread_words<Chunk>(exec, x.data(), place, rows.data(),
                        bytes / static_cast<int>(sizeof(Chunk)));
  } else {
    spread_words<Storage>(exec, x.data(), place, rows.data(), x.extent_int(1));
  }
}

template <class Storage>
void gather_tokens(const Exec& exec, const Tensor<const Storage, 2>& rows,
                   const Tensor<const int, 2>& place, const TokenTerms<Storage>& terms,
                   const Tensor<Storage, 2>& y) {
  Kokkos::parallel_for("experts_dispatch::gather", row_policy(exec, y.extent_int(0)),
                       GatherTokens<Storage>{rows, place, terms, y});
}

#define QNEXT_INSTANTIATE(Real)                                      \
  template struct DispatchWork<Real>;                                \
  template void sum_routing<Real>(const Exec&, const Routing<Real>&, \
                                  const RoutingStatistics<Real>&, const DispatchWork<Real>&);
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

#define QNEXT_INSTANTIATE(Storage)                                                              \
  template void spread_tokens<Storage>(const Exec&, const Tensor<const Storage, 2>&,            \
                                       const Tensor<const int, 2>&, const Tensor<Storage, 2>&); \
  template void gather_tokens<Storage>(const Exec&, const Tensor<const Storage, 2>&,            \
                                       const Tensor<const int, 2>&, const TokenTerms<Storage>&, \
                                       const Tensor<Storage, 2>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
