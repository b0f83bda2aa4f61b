// SPDX-License-Identifier: Apache-2.0
#include "parallel/half_swap.hpp"

#include "core/context_share.hpp"
#include "core/team.hpp"

namespace qnext {
namespace {

// A team takes a row of the second halves.
template <class T>
struct TakeHalves {
  Tensor<const T, 2> halves;  // (pieces half, W)
  Tensor<T, 2> rows;
  int piece;
  int half;  // rows of the second half

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int i = team.league_rank();
    const T* const from = &halves(i, 0);
    T* const to = &rows(i / half * piece + piece - half + i % half, 0);
    for_each_in(team, rows.extent_int(1), [&](const int w) { to[w] = from[w]; });
  }
};

}  // namespace

std::int64_t HalfSwap::room(std::int64_t rows, int piece, std::int64_t width) {
  return rows / piece * (piece - first_half(piece)) * width;
}

template <class T>
void HalfSwap::swap(const Exec& exec, const Tensor<T, 2>& rows, const Tensor<T, 1>& buffer) const {
  const int half = piece_ - first_half(piece_), mirror = group_.ranks() - 1 - group_.rank();
  if (half == 0 || mirror == group_.rank()) {
    return;
  }
  const std::int64_t W = rows.extent_int(1), numbers = room(rows.extent_int(0), piece_, W);
  require(static_cast<std::int64_t>(buffer.size()) >= numbers,
          "half_swap: room for " + std::to_string(buffer.size()) + " numbers, wanted " +
              std::to_string(numbers));
  const int pieces = rows.extent_int(0) / piece_;
  std::vector<Parcel> sends, receives;
  for (std::int64_t s = 0; s < pieces; ++s) {
    const Tensor<T, 1> leaves(rows.data() + (s * piece_ + piece_ - half) * W, half * W);
    const Tensor<T, 1> arrives(buffer.data() + s * half * W, half * W);
    sends.push_back({mirror, buffer_of(leaves)});
    receives.push_back({mirror, buffer_of(arrives)});
  }
  group_.exchange(sends, receives);
  Kokkos::parallel_for(
      "half_swap::take", row_policy(exec, pieces * half),
      TakeHalves<T>{Tensor<const T, 2>(buffer.data(), pieces * half, W), rows, piece_, half});
}

template void HalfSwap::swap<bf16>(const Exec&, const Tensor<bf16, 2>&,
                                   const Tensor<bf16, 1>&) const;
template void HalfSwap::swap<float>(const Exec&, const Tensor<float, 2>&,
                                    const Tensor<float, 1>&) const;
template void HalfSwap::swap<double>(const Exec&, const Tensor<double, 2>&,
                                     const Tensor<double, 1>&) const;

}  // namespace qnext
