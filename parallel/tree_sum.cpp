// SPDX-License-Identifier: Apache-2.0
#include "parallel/tree_sum.hpp"

#include "core/fence.hpp"
#include "core/pairwise_tree.hpp"

#include <algorithm>
#include <vector>

namespace qnext {
namespace {

// Bytes of a piece of one rank.
std::int64_t piece_bytes(int ranks, std::int64_t largest_part_bytes) {
  constexpr std::int64_t least = Shards::block * std::int64_t{sizeof(double)};
  const std::int64_t share = TreeSum::room / std::max(1, ranks - 1) / least * least;
  return std::min(std::max(least, share), largest_part_bytes);
}

// sum += part
template <class Real>
void add(const Exec& exec, Real* sum, const Real* part, std::int64_t count) {
  Kokkos::parallel_for(
      "tree_sum::add", Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, count),
      KOKKOS_LAMBDA(const std::int64_t i) { sum[i] += part[i]; });
}

// All terms into that of `own`, which is added to wherever it is one of the two: a + b = b + a.
template <class Real>
void add_all(const Exec& exec, const std::vector<Real*>& terms, int own, std::int64_t count) {
  const int n = static_cast<int>(terms.size());
  std::vector<int> stack;
  for (int i = 0; i < n; ++i) {
    stack.push_back(i);
    for (int merge = merges_after(i, n); merge > 0; --merge) {
      int part = stack.back();
      stack.pop_back();
      if (part == own) {
        std::swap(part, stack.back());
      }
      add(exec, terms[stack.back()], terms[part], count);
    }
  }
}

}  // namespace

TreeSum::TreeSum(std::int64_t workspace_bytes)
    : received_(Kokkos::view_alloc("parts of a sum", Kokkos::WithoutInitializing),
                workspace_bytes) {}

std::int64_t TreeSum::workspace_bytes(int ranks, std::int64_t largest_part_bytes) {
  return (ranks - 1) * piece_bytes(ranks, largest_part_bytes);
}

std::int64_t TreeSum::workspace_bytes(const ProcessGrid& grid, const ParameterTable& table) {
  std::int64_t most = 0;
  for (std::size_t g = 0; g < table.groups().size(); ++g) {
    const auto& group = table.groups()[g];
    const int ranks = grid.ranks_over(group.reduce_over);
    const std::int64_t part =
        largest_part(table, static_cast<int>(g), ranks) * size_of(accum_of(group.type));
    most = std::max(most, workspace_bytes(ranks, part));
  }
  return most;
}

template <class Real>
void TreeSum::sum_parts(const Exec& exec, const Tensor<Real, 1>& values,
                        const Shards& shards) const {
  const Communicator& over = shards.over;
  const int own = over.rank(), ranks = over.ranks();
  if (ranks == 1) {
    return;
  }
  std::int64_t longest = 0;
  for (int r = 0; r < ranks; ++r) {
    longest = std::max(longest, shards.borders[r + 1] - shards.borders[r]);
  }
  auto* const received = reinterpret_cast<Real*>(received_.data());
  const std::int64_t piece =
      static_cast<std::int64_t>(received_.extent(0) / sizeof(Real)) / (ranks - 1);
  for (std::int64_t first = 0; first < longest; first += piece) {
    const auto begin = [&](int r) { return shards.borders[r] + first; };
    const auto count = [&](int r) {
      return std::clamp(shards.borders[r + 1] - begin(r), std::int64_t{0}, piece);
    };
    std::vector<Parcel> sends, receives;
    std::vector<Real*> terms(ranks, values.data() + begin(own));
    for (int step = 1; step < ranks; ++step) {
      const int to = (own + step) % ranks, from = (own + ranks - step) % ranks;
      terms[from] = received + (step - 1) * piece;
      sends.push_back({to, buffer_of(Tensor<Real, 1>(values.data() + begin(to), count(to)))});
      receives.push_back({from, buffer_of(Tensor<Real, 1>(terms[from], count(own)))});
    }
    over.exchange(sends, receives);
    add_all(exec, terms, own, count(own));
    fence(exec, "tree_sum: the next piece takes the same memory");
  }
}

template void TreeSum::sum_parts<float>(const Exec&, const Tensor<float, 1>&, const Shards&) const;
template void TreeSum::sum_parts<double>(const Exec&, const Tensor<double, 1>&,
                                         const Shards&) const;

}  // namespace qnext
