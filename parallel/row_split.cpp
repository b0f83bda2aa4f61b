// SPDX-License-Identifier: Apache-2.0
#include "parallel/row_split.hpp"

#include "core/fence.hpp"
#include "core/parts.hpp"
#include "core/team.hpp"

#include <fmt/format.h>

#include <type_traits>

namespace qnext {
namespace {

// What numbers of a type are added in.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, bf16>, float, T>;

template <class T>
struct CopyRows {
  TokenRows rows;
  Tensor<const T, 2> mine;
  Tensor<T, 2> whole;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int i = team.league_rank();
    const T* const from = &mine(i, 0);
    T* const to = &whole(rows.token(i), 0);
    for_each_in(team, mine.extent_int(1), [&](const int d) { to[d] = from[d]; });
  }
};

// A team takes a row of this rank. The rows of the other ranks lie in `received` one rank after the
// other, without a place for this one.
template <class In, class Out>
struct SumRows {
  TokenRows rows;
  Tensor<const In, 2> partial;
  Tensor<const In, 1> received;
  Tensor<Out, 2> mine;
  int ranks;
  int rank;
  bool add;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int i = team.league_rank();
    const int W = mine.extent_int(1);
    const std::int64_t size = std::int64_t{1} * mine.extent_int(0) * W;
    const In* const own = &partial(rows.token(i), 0);
    const In* const others = received.data() + std::int64_t{1} * i * W;
    Out* const out = &mine(i, 0);
    for_each_in(team, W, [&](const int d) {
      Wide<In> sum = 0;
      for (int r = 0; r < ranks; ++r) {
        const int slot = r < rank ? r : r - 1;
        sum += static_cast<Wide<In>>(r == rank ? own[d] : others[slot * size + d]);
      }
      out[d] = Out(add ? static_cast<Wide<Out>>(out[d]) + sum : sum);
    });
  }
};

}  // namespace

RowSplit::RowSplit(const Communicator& group, int ranks, int rank, int tokens, int sequences)
    : group_(group),
      ranks_(ranks),
      rank_(rank),
      sequences_(tokens % sequences == 0 ? sequences : 1),
      sequence_(tokens / sequences_) {}

int RowSplit::first_of(int rank) const {
  return static_cast<int>(part_begin(sequence_, rank, ranks_));
}

TokenRows RowSplit::token_rows() const {
  return {rows_of(rank_), sequence_, first_of(rank_)};
}

void RowSplit::add_pieces(int rank, int of, const Buffer& whole,
                          std::vector<Parcel>& parcels) const {
  const std::int64_t width = whole.bytes / (std::int64_t{1} * sequences_ * sequence_);
  for (int s = 0; s < sequences_; ++s) {
    const std::int64_t begin = std::int64_t{1} * s * sequence_ + first_of(of);
    parcels.push_back({rank, {whole.data + begin * width, rows_of(of) * width, whole.on_host}});
  }
}

template <class T>
void RowSplit::gather(const Exec& exec, const Tensor<const T, 2>& mine,
                      const Tensor<T, 2>& whole) const {
  Kokkos::parallel_for("row_split::copy", row_policy(exec, rows()),
                       CopyRows<T>{token_rows(), mine, whole});
  share<T>(whole);
}

template <class T>
void RowSplit::share(const Tensor<T, 2>& whole) const {
  if (sequence_ == 0) {
    return;
  }
  std::vector<Parcel> sends, receives;
  for (int step = 1; step < ranks_; ++step) {
    const int to = (rank_ + step) % ranks_, from = (rank_ + ranks_ - step) % ranks_;
    add_pieces(to, rank_, buffer_of(whole), sends);
    add_pieces(from, from, buffer_of(whole), receives);
  }
  group_.exchange(sends, receives);
}

template <class In, class Out>
void RowSplit::sum(const Exec& exec, const Tensor<const In, 2>& partial,
                   const Tensor<In, 1>& received, const Tensor<Out, 2>& mine, Write write) const {
  if (sequence_ == 0) {
    return;
  }
  const std::int64_t size = std::int64_t{1} * rows() * partial.extent_int(1);
  require(static_cast<std::int64_t>(received.size()) >= (ranks_ - 1) * size,
          fmt::format("a sum over {} ranks: room for {} received numbers, wanted {}", ranks_,
                      received.size(), (ranks_ - 1) * size));
  std::vector<Parcel> sends, receives;
  for (int step = 1; step < ranks_; ++step) {
    const int to = (rank_ + step) % ranks_, from = (rank_ + ranks_ - step) % ranks_;
    add_pieces(to, to, buffer_of(partial), sends);
    const int slot = from < rank_ ? from : from - 1;
    const Tensor<In, 1> place(received.data() + slot * size, size);
    for (int s = 0; s < sequences_; ++s) {
      Buffer piece = buffer_of(place);
      piece.bytes /= sequences_;
      piece.data += s * piece.bytes;
      receives.push_back({from, piece});
    }
  }
  group_.exchange(sends, receives);
  Kokkos::parallel_for(
      "row_split::sum", row_policy(exec, rows()),
      SumRows<In, Out>{token_rows(), partial, received, mine, ranks_, rank_, write == Write::add});
}

#define QNEXT_INSTANTIATE(T)                                                                     \
  template void RowSplit::gather<T>(const Exec&, const Tensor<const T, 2>&, const Tensor<T, 2>&) \
      const;                                                                                     \
  template void RowSplit::share<T>(const Tensor<T, 2>&) const;
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
QNEXT_INSTANTIATE(int)
#undef QNEXT_INSTANTIATE

#define QNEXT_INSTANTIATE(In, Out)                                              \
  template void RowSplit::sum<In, Out>(const Exec&, const Tensor<const In, 2>&, \
                                       const Tensor<In, 1>&, const Tensor<Out, 2>&, Write) const;
QNEXT_INSTANTIATE(bf16, bf16)
QNEXT_INSTANTIATE(bf16, float)
QNEXT_INSTANTIATE(float, float)
QNEXT_INSTANTIATE(double, double)
QNEXT_INSTANTIATE(int, int)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
