// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/delta_rule_slot.hpp"

#include "core/require.hpp"
#include "layers/kernels/delta_rule_piece.hpp"

#include <algorithm>
#include <string>

namespace qnext {
namespace delta_rule {

void require_chunk(int chunk) {
  require(chunk >= 16 && chunk <= 64 && chunk % 16 == 0,
          "delta rule: chunk = " + std::to_string(chunk) + ", wanted 16, 32, 48 or 64");
}

void reset(const Exec& exec, const Tensor<int, 1>& next) {
  Kokkos::parallel_for(
      "delta_rule::reset", Kokkos::RangePolicy<Exec>(exec, 0, 1),
      KOKKOS_LAMBDA(const int i) { next(i) = 0; });
}

}  // namespace delta_rule

template <class Storage>
DeltaRuleWork<Accum<Storage>> reserve_delta_rule_work(Arena& arena, const DeltaRuleShape& shape,
                                                      const MicrobatchShape& microbatch,
                                                      bool pieces) {
  using Real = Accum<Storage>;
  TileSpace<Real> forward{nullptr, 0}, backward{nullptr, 0};
  const delta_rule::ForwardSlot<Storage> for_forward(forward, shape);
  const delta_rule::BackwardSlot<Storage> for_backward(backward, shape, microbatch.tokens);
  const std::int64_t for_pieces = pieces ? delta_rule_piece_slot<Storage>(shape) : 0;
  return {arena.reserve<Real, 2>("delta_rule_slots", slots_for(shape.G * microbatch.documents),
                                 std::max({forward.used, backward.used, for_pieces})),
          arena.reserve<int, 1>("delta_rule_next", 1)};
}

template DeltaRuleWork<float> reserve_delta_rule_work<bf16>(Arena&, const DeltaRuleShape&,
                                                            const MicrobatchShape&, bool);
template DeltaRuleWork<float> reserve_delta_rule_work<float>(Arena&, const DeltaRuleShape&,
                                                             const MicrobatchShape&, bool);
template DeltaRuleWork<double> reserve_delta_rule_work<double>(Arena&, const DeltaRuleShape&,
                                                               const MicrobatchShape&, bool);

}  // namespace qnext
