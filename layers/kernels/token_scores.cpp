// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/token_scores.hpp"

#include "core/math.hpp"
#include "core/team.hpp"

namespace qnext {
namespace {

// A team takes a token; the lanes share the vocabulary.
template <class Real>
struct ScoreTokens {
  Tensor<const Real, 2> logits;
  Tensor<const int, 1> rows, tokens;
  Tensor<double, 1> log_probability;
  Tensor<int, 1> best;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int n = team.league_rank();
    const int V = logits.extent_int(1);
    const Real* const row = &logits(rows(n), 0);
    const Real top = max_over<Real>(team, V, row[0], [&](const int v) { return row[v]; });
    const double sum = sum_over<double>(
        team, V, [&](const int v) { return exp(static_cast<double>(row[v] - top)); });
    const int behind =
        max_over<int>(team, V, 0, [&](const int v) { return row[v] == top ? V - v : 0; });
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      log_probability(n) = static_cast<double>(row[tokens(n)] - top) - log(sum);
      best(n) = V - behind;
    });
  }
};

}  // namespace

template <class Real>
void score_tokens(const Exec& exec, const Tensor<const Real, 2>& logits,
                  const Tensor<const int, 1>& rows, const Tensor<const int, 1>& tokens,
                  const Tensor<double, 1>& log_probability, const Tensor<int, 1>& best) {
  Kokkos::parallel_for("token_scores::score", row_policy(exec, rows.extent_int(0)),
                       ScoreTokens<Real>{logits, rows, tokens, log_probability, best});
}

#define QNEXT_INSTANTIATE(Real)                                                              \
  template void score_tokens<Real>(const Exec&, const Tensor<const Real, 2>&,                \
                                   const Tensor<const int, 1>&, const Tensor<const int, 1>&, \
                                   const Tensor<double, 1>&, const Tensor<int, 1>&);
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
