// SPDX-License-Identifier: Apache-2.0
#include "app/peak.hpp"

#include "app/measure.hpp"
#include "core/fence.hpp"
#include "core/matmul.hpp"
#include "core/types.hpp"

#include <algorithm>
#include <chrono>

namespace qnext {
namespace {

template <class Storage>
double product_rate(int n, double seconds) {
  using Clock = std::chrono::steady_clock;
  const Exec exec;
  const Tensor<Storage, 2> a("peak a", n, n), b("peak b", n, n), c("peak c", n, n);
  Kokkos::deep_copy(exec, a, Storage(0.5));
  Kokkos::deep_copy(exec, b, Storage(0.25));
  double best = 1e30;
  const auto begin = Clock::now();
  for (int repeat = 0; repeat < 2 || Clock::now() < begin + std::chrono::duration<double>(seconds);
       ++repeat) {
    fence(exec, "peak: the product that is timed");
    const auto start = Clock::now();
    matmul<Storage, Storage>(exec, Op::none, a, Op::transpose, b, c);
    fence(exec, "peak: the product that is timed");
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return 2.0 * n * n * n / best;
}

}  // namespace

template <class Storage>
double product_peak(const std::vector<int>& sizes, double seconds) {
  double best = 0.0;
  for (const int n : sizes) {
    best = std::max(best, product_rate<Storage>(n, seconds));
  }
  return best;
}

double copy_peak() {
  constexpr std::int64_t bytes = std::int64_t{1} << 28;
  const Tensor<double, 1> from("peak from", bytes / sizeof(double)), to("peak to", from.extent(0));
  const double seconds = shortest_time([&] { Kokkos::deep_copy(Exec{}, to, from); });
  return 2.0 * static_cast<double>(bytes) / seconds;
}

template double product_peak<bf16>(const std::vector<int>&, double);
template double product_peak<float>(const std::vector<int>&, double);
template double product_peak<double>(const std::vector<int>&, double);

}  // namespace qnext
