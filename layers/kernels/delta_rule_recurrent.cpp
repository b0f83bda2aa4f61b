// SPDX-License-Identifier: Apache-2.0
#include "core/math.hpp"
#include "core/team.hpp"
#include "layers/kernels/delta_rule.hpp"

namespace qnext {
namespace {

// A team takes one head of one document and walks its tokens. Column v of the memory never reads
// another column, so a lane owns its columns, memory is read and written along its contiguous
// extent, and no two lanes ever have to meet. With x = S^T k and y = S^T q of the memory before the
// token, the read is a y + (q.k) w for the write w = beta (v - a x): one pass reads the memory,
// one updates it in place.
template <class Storage>
struct RecurrentForward {
  using Real = Accum<Storage>;
  using Row = Scratch<Real, 1>;

  Documents documents;
  DeltaRuleInput<Storage> in;
  Tensor<Real, 4> memory;
  Tensor<Storage, 3> out;
  Keep keep;

  void launch(const Exec& exec) const {
    const int league = documents.count * out.extent_int(1);
    const auto bytes = 2 * Row::shmem_size(out.extent(2));
    Kokkos::parallel_for(
        "delta_rule::recurrent_forward",
        row_policy(exec, league).set_scratch_size(0, Kokkos::PerTeam(static_cast<int>(bytes))),
        *this);
  }

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int H = out.extent_int(1), V = out.extent_int(2), G = in.k.extent_int(1);
    const int n = team.league_rank() / H;
    const int h = team.league_rank() % H;
    const Row recalled(team.team_scratch(0), V);
    const Row answered(team.team_scratch(0), V);
    const int begin = documents.begin(n), final = documents.final_row(n);
    const Real* before = &memory(documents.initial_row(n), h, 0, 0);
    for (int t = begin; t < documents.begin(n + 1); ++t) {
      Real* const behind = &memory(keep == Keep::each ? final + t - begin : final, h, 0, 0);
      advance(team, t, h, h / (H / G), before, behind, recalled.data(), answered.data());
      before = behind;
    }
  }

  // The memory behind the token may be the one before it.
  KOKKOS_FUNCTION void advance(const RowTeam& team, int t, int h, int g, const Real* before,
                               Real* behind, Real* recalled, Real* answered) const {
    const int V = out.extent_int(2), K = in.k.extent_int(2);
    const Storage* const key = &in.k(t, g, 0);
    const Storage* const query = &in.q(t, g, 0);
    const Storage* const value = &in.v(t, h, 0);
    Storage* const result = &out(t, h, 0);
    const Real decay = exp(in.log_decay(t, h));
    const Real beta = in.beta(t, h);
    const Real match = sum_over<Real>(team, K, [&](const int i) {
      return static_cast<Real>(query[i]) * static_cast<Real>(key[i]);
    });

    for_each_in(team, V, [&](const int c) {
      recalled[c] = 0;
      answered[c] = 0;
    });
    for (int i = 0; i < K; ++i) {
      const Real* const row = before + static_cast<std::int64_t>(i) * V;
      const Real k = static_cast<Real>(key[i]), q = static_cast<Real>(query[i]);
      for_each_in(team, V, [&](const int c) {
        recalled[c] += k * row[c];
        answered[c] += q * row[c];
      });
    }
    for_each_in(team, V, [&](const int c) {
      const Real write = beta * (static_cast<Real>(value[c]) - decay * recalled[c]);
      result[c] = Storage(decay * answered[c] + match * write);
      recalled[c] = write;
    });
    for (int i = 0; i < K; ++i) {
      const Real* const row = before + static_cast<std::int64_t>(i) * V;
      Real* const next = behind + static_cast<std::int64_t>(i) * V;
      const Real k = static_cast<Real>(key[i]);
      for_each_in(team, V, [&](const int c) { next[c] = decay * row[c] + k * recalled[c]; });
    }
  }
};

}  // namespace

template <class Storage>
void delta_rule_recurrent(const Exec& exec, const Documents& documents,
                          const DeltaRuleInput<Storage>& in,
                          const Tensor<Accum<Storage>, 4>& memory, const Tensor<Storage, 3>& out,
                          Keep keep) {
  RecurrentForward<Storage>{documents, in, memory, out, keep}.launch(exec);
}

#define QNEXT_INSTANTIATE(Storage)                                   \
  template void delta_rule_recurrent<Storage>(                       \
      const Exec&, const Documents&, const DeltaRuleInput<Storage>&, \
      const Tensor<Accum<Storage>, 4>&, const Tensor<Storage, 3>&, Keep);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
