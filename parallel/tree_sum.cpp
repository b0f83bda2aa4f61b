// SPDX-License-Identifier: Apache-2.0
#include "parallel/tree_sum.hpp"

#include "core/fence.hpp"
#include "core/pairwise_tree.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace qnext {
namespace {

// Bytes of a piece that are one rank's part.
std::int64_t piece_bytes(int ranks, std::int64_t bucket) {
  constexpr std::int64_t block = Shards::block * std::int64_t{sizeof(double)};
  return (bucket / ranks / block + 2) * block;
}

// Of a slot, the same whatever the ranks and the type of its piece are: the next slot may hold a
// piece of other ranks and of another type.
constexpr std::int64_t slot_unit = sizeof(double);

std::int64_t slot_bytes(std::int64_t workspace_bytes) {
  return workspace_bytes / TreeSum::pieces_under_way / slot_unit * slot_unit;
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

TreeSum::TreeSum(std::int64_t workspace_bytes, std::int64_t bucket)
    : received_(Kokkos::view_alloc("parts of a sum", Kokkos::WithoutInitializing), workspace_bytes),
      bucket_(bucket) {}

std::int64_t TreeSum::workspace_bytes(int ranks, std::int64_t largest_part_bytes,
                                      std::int64_t bucket) {
  const std::int64_t slot = (ranks - 1) * std::min(piece_bytes(ranks, bucket), largest_part_bytes);
  return pieces_under_way * ((slot + slot_unit - 1) / slot_unit * slot_unit);
}

std::int64_t TreeSum::workspace_bytes(const ProcessGrid& grid, const ParameterTable& table,
                                      std::int64_t bucket) {
  std::int64_t most = 0;
  for (std::size_t g = 0; g < table.groups().size(); ++g) {
    const auto& group = table.groups()[g];
    if (group.frozen) {
      continue;
    }
    const int ranks = grid.ranks_over(group.reduce_over);
    const std::int64_t part =
        largest_part(table, static_cast<int>(g), ranks) * size_of(accum_of(group.type));
    most = std::max(most, workspace_bytes(ranks, part, bucket));
  }
  return most;
}

std::int64_t TreeSum::pieces(int ranks, std::int64_t largest_part_bytes, std::int64_t bucket) {
  const std::int64_t piece = piece_bytes(ranks, bucket);
  return ranks == 1 ? 0 : (largest_part_bytes + piece - 1) / piece;
}

template <class Real>
std::int64_t TreeSum::start(const Exec& exec, const Tensor<Real, 1>& values, const Shards& shards,
                            const std::function<void()>& summed) {
  const Communicator& over = shards.over;
  const int own = over.rank(), ranks = over.ranks();
  if (ranks == 1) {
    if (summed) {
      summed();
    }
    return -1;
  }
  std::int64_t longest = 0;
  for (int r = 0; r < ranks; ++r) {
    longest = std::max(longest, shards.borders[r + 1] - shards.borders[r]);
  }
  const std::int64_t piece = piece_bytes(ranks, bucket_) / std::int64_t{sizeof(Real)};
  const std::int64_t slot_size = slot_bytes(static_cast<std::int64_t>(received_.extent(0)));
  const std::int64_t room = slot_size / std::int64_t{sizeof(Real)} / (ranks - 1);
  std::int64_t last_job = -1;
  std::byte* const received = received_.data();
  for (std::int64_t first = 0; first < longest; first += piece) {
    const auto begin = [=, &shards](int r) { return shards.borders[r] + first; };
    const auto count = [=, &shards](int r) {
      return std::clamp(shards.borders[r + 1] - begin(r), std::int64_t{0}, piece);
    };
    require(count(own) <= room, "tree_sum: the workspace has room for " + std::to_string(room) +
                                    " numbers of a rank, wanted are " + std::to_string(count(own)));
    const auto place = [=](int slot, int step) {
      return reinterpret_cast<Real*>(received + slot * slot_size) + (step - 1) * room;
    };
    std::vector<Parcel> sends;
    for (int step = 1; step < ranks; ++step) {
      const int to = (own + step) % ranks;
      sends.push_back({to, buffer_of(Tensor<Real, 1>(values.data() + begin(to), count(to)))});
    }
    Real* const sum = values.data() + begin(own);
    const std::int64_t mine = count(own);
    const auto from = [=](int step) { return (own + ranks - step) % ranks; };
    TransferQueue::Job job;
    job.start = [=](int slot) {
      std::vector<Parcel> receives;
      for (int step = 1; step < ranks; ++step) {
        receives.push_back({from(step), buffer_of(Tensor<Real, 1>(place(slot, step), mine))});
      }
      fence(exec, "tree_sum: what was received here is added");
      return over.start(sends, receives);
    };
    const bool last = first + piece >= longest;
    job.end = [=](int slot) {
      std::vector<Real*> terms(ranks, sum);
      for (int step = 1; step < ranks; ++step) {
        terms[from(step)] = place(slot, step);
      }
      add_all(exec, terms, own, mine);
      if (last && summed) {
        summed();
      }
    };
    last_job = queue_.add(std::move(job));
  }
  return last_job;
}

std::int64_t TreeSum::start(const Exec& exec, const Tensor<std::byte, 1>& values, DataType type,
                            const Shards& shards, const std::function<void()>& summed) {
  const auto as = [&]<class Real>(Real) {
    return start<Real>(
        exec,
        Tensor<Real, 1>(reinterpret_cast<Real*>(values.data()), values.extent(0) / sizeof(Real)),
        shards, summed);
  };
  return type == DataType::float64 ? as(0.0) : as(0.0f);
}

template std::int64_t TreeSum::start<float>(const Exec&, const Tensor<float, 1>&, const Shards&,
                                            const std::function<void()>&);
template std::int64_t TreeSum::start<double>(const Exec&, const Tensor<double, 1>&, const Shards&,
                                             const std::function<void()>&);

}  // namespace qnext
