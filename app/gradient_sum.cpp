// SPDX-License-Identifier: Apache-2.0
#include "app/gradient_sum.hpp"

#include "app/gradient_numbers.hpp"
#include "core/pairwise_tree.hpp"

namespace qnext {
namespace {

using gradient_numbers::add_numbers;
using gradient_numbers::Bytes;
using gradient_numbers::numbers;

// By numbers and not by bytes: several times as fast.
template <class Real>
void clear(const Exec& exec, const Bytes& sum_bytes) {
  Kokkos::deep_copy(exec, numbers<Real>(sum_bytes), Real(0));
}

// kept = sum; sum = 0
template <class Real>
void put_away(const Exec& exec, const Bytes& sum_bytes, const Bytes& kept_bytes) {
  const auto sum = numbers<Real>(sum_bytes);
  const auto kept = numbers<Real>(kept_bytes);
  Kokkos::parallel_for(
      "gradient_sum::put_away",
      Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, sum.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t i) {
        kept(i) = sum(i);
        sum(i) = 0;
      });
}

}  // namespace

int GradientSum::levels(GradientOrder order, int microbatches) {
  return order == GradientOrder::running ? 0 : waiting_sums(microbatches);
}

std::int64_t GradientSum::stack_bytes(const ParameterTable& table, GradientOrder order,
                                      int microbatches) {
  std::int64_t bytes = 0;
  for (const auto& group : table.groups()) {
    bytes += group.frozen ? 0 : group.elements * size_of(accum_of(group.type));
  }
  return bytes * levels(order, microbatches);
}

GradientSum::GradientSum(const ParameterTable& table, GradientOrder order, int microbatches,
                         int chunk)
    : table_(table),
      order_(order),
      microbatches_(microbatches),
      stack_(levels(order, microbatches)) {
  for (std::size_t g = 0; g < table.groups().size(); ++g) {
    if (table.groups()[g].chunk == chunk && !table.groups()[g].frozen) {
      groups_.push_back(g);
    }
  }
  for (Level& level : stack_) {
    for (const std::size_t g : groups_) {
      level.emplace(g, Bytes(Kokkos::view_alloc("gradient stack", Kokkos::WithoutInitializing),
                             table.groups()[g].gradients.extent(0)));
    }
  }
}

void GradientSum::add(const Exec& exec, std::size_t g, int level) const {
  const auto& group = table_.groups()[g];
  const Bytes& waiting = stack_[level].at(g);
  accum_of(group.type) == DataType::float64 ? add_numbers<double>(exec, group.gradients, waiting)
                                            : add_numbers<float>(exec, group.gradients, waiting);
}

void GradientSum::before_microbatch(const Exec& exec, int m) {
  const auto& groups = table_.groups();
  if (m == 0) {
    waiting_ = 0;
    for (const std::size_t g : groups_) {
      accum_of(groups[g].type) == DataType::float64 ? clear<double>(exec, groups[g].gradients)
                                                    : clear<float>(exec, groups[g].gradients);
    }
    return;
  }
  if (order_ == GradientOrder::running) {
    return;
  }
  // The sums that end with the microbatch before.
  for (int merge = merges_after(m - 1, microbatches_); merge > 0; --merge) {
    --waiting_;
    for (const std::size_t g : groups_) {
      add(exec, g, waiting_);
    }
  }
  for (const std::size_t g : groups_) {
    const Bytes& kept = stack_[waiting_].at(g);
    accum_of(groups[g].type) == DataType::float64
        ? put_away<double>(exec, groups[g].gradients, kept)
        : put_away<float>(exec, groups[g].gradients, kept);
  }
  ++waiting_;
}

void GradientSum::finish(const Exec& exec, std::size_t group) const {
  for (int level = waiting_ - 1; level >= 0; --level) {
    add(exec, group, level);
  }
}

}  // namespace qnext
