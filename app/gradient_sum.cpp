// SPDX-License-Identifier: Apache-2.0
#include "app/gradient_sum.hpp"

#include "core/pairwise_tree.hpp"

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
      "gradient_sum::put_away", Kokkos::RangePolicy<Exec>(exec, 0, sum.extent(0)),
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
    bytes += group.elements * size_of(accum_of(group.type));
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
    ranges_.push_back(table.range(g, chunk));
  }
  for (Level& level : stack_) {
    for (std::size_t g = 0; g < ranges_.size(); ++g) {
      level.emplace_back(Kokkos::view_alloc("gradient stack", Kokkos::WithoutInitializing),
                         gradients(g).extent(0));
    }
  }
}

Bytes GradientSum::gradients(std::size_t group) const {
  const auto& buffer = table_.groups()[group].gradients;
  const int size = size_of(accum_of(table_.groups()[group].type));
  const auto [begin, end] = ranges_[group];
  return Bytes(buffer.data() + begin * size, (end - begin) * size);
}

// The sums that end with this microbatch.
void GradientSum::add_waiting(const Exec& exec, int last_microbatch) {
  const auto& groups = table_.groups();
  for (int merge = merges_after(last_microbatch, microbatches_); merge > 0; --merge) {
    --waiting_;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      accum_of(groups[g].type) == DataType::float64
          ? add<double>(exec, gradients(g), stack_[waiting_][g])
          : add<float>(exec, gradients(g), stack_[waiting_][g]);
    }
  }
}

void GradientSum::before_microbatch(const Exec& exec, int m) {
  const auto& groups = table_.groups();
  if (m == 0) {
    for (std::size_t g = 0; g < groups.size(); ++g) {
      accum_of(groups[g].type) == DataType::float64 ? clear<double>(exec, gradients(g))
                                                    : clear<float>(exec, gradients(g));
    }
    return;
  }
  if (order_ == GradientOrder::running) {
    return;
  }
  add_waiting(exec, m - 1);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    accum_of(groups[g].type) == DataType::float64
        ? put_away<double>(exec, gradients(g), stack_[waiting_][g])
        : put_away<float>(exec, gradients(g), stack_[waiting_][g]);
  }
  ++waiting_;
}

void GradientSum::finish(const Exec& exec) {
  if (order_ == GradientOrder::tree) {
    add_waiting(exec, microbatches_ - 1);
  }
}

}  // namespace qnext
