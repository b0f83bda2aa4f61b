// SPDX-License-Identifier: Apache-2.0
#include "app/gradient_sum.hpp"

#include <bit>

namespace qnext {
namespace {

using Bytes = Tensor<std::byte, 1>;

template <class Real>
Tensor<Real, 1> numbers(const Bytes& bytes) {
  return Tensor<Real, 1>(reinterpret_cast<Real*>(bytes.data()), bytes.extent(0) / sizeof(Real));
}

// sum += part
template <class Real>
void add(const Exec& exec, const Bytes& sum_bytes, const Bytes& part_bytes) {
  const auto sum = numbers<Real>(sum_bytes);
  const auto part = numbers<Real>(part_bytes);
  Kokkos::parallel_for(
      "gradient_sum::add", Kokkos::RangePolicy<Exec>(exec, 0, sum.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t i) { sum(i) += part(i); });
}

// kept = sum; sum = 0
template <class Real>
void put_away(const Exec& exec, const Bytes& sum_bytes, const Bytes& kept_bytes) {
  const auto sum = numbers<Real>(sum_bytes);
  const auto kept = numbers<Real>(kept_bytes);
  Kokkos::parallel_for(
      "gradient_sum::put_away", Kokkos::RangePolicy<Exec>(exec, 0, sum.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t i) {
        kept(i) = sum(i);
        sum(i) = 0;
      });
}

}  // namespace

int GradientSum::levels(GradientOrder order, int microbatches) {
  if (order == GradientOrder::running || microbatches < 2) {
    return 0;
  }
  return static_cast<int>(std::bit_width(static_cast<unsigned>(microbatches - 1)));
}

std::int64_t GradientSum::stack_bytes(const ParameterTable& table, GradientOrder order,
                                      int microbatches) {
  std::int64_t bytes = 0;
  for (const auto& group : table.groups()) {
    bytes += group.elements * size_of(accum_of(group.type));
  }
  return bytes * levels(order, microbatches);
}

GradientSum::GradientSum(const ParameterTable& table, GradientOrder order, int microbatches)
    : table_(table), order_(order), stack_(levels(order, microbatches)) {
  for (Level& level : stack_) {
    for (const auto& group : table.groups()) {
      level.groups.emplace_back(Kokkos::view_alloc("gradient stack", Kokkos::WithoutInitializing),
                                group.elements * size_of(accum_of(group.type)));
    }
  }
}

void GradientSum::before_microbatch(const Exec& exec, int m) {
  if (m == 0) {
    table_.zero_gradients(exec);
    return;
  }
  if (order_ == GradientOrder::running) {
    return;
  }
  // Adding one to a binary counter: full levels carry into the next one.
  std::size_t free = 0;
  for (; stack_[free].full; ++free) {
    stack_[free].full = false;
  }
  const auto& groups = table_.groups();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const bool is_double = accum_of(groups[g].type) == DataType::float64;
    for (std::size_t level = 0; level < free; ++level) {
      is_double ? add<double>(exec, groups[g].gradients, stack_[level].groups[g])
                : add<float>(exec, groups[g].gradients, stack_[level].groups[g]);
    }
    is_double ? put_away<double>(exec, groups[g].gradients, stack_[free].groups[g])
              : put_away<float>(exec, groups[g].gradients, stack_[free].groups[g]);
  }
  stack_[free].full = true;
}

void GradientSum::finish(const Exec& exec) {
  const auto& groups = table_.groups();
  for (Level& level : stack_) {
    if (!level.full) {
      continue;
    }
    level.full = false;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      accum_of(groups[g].type) == DataType::float64
          ? add<double>(exec, groups[g].gradients, level.groups[g])
          : add<float>(exec, groups[g].gradients, level.groups[g]);
    }
  }
}

}  // namespace qnext
