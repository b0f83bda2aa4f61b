// SPDX-License-Identifier: Apache-2.0
#include "core/peak.hpp"

#include "core/bf16.hpp"
#include "core/dot.hpp"
#include "core/fence.hpp"
#include "core/matmul.hpp"
#include "core/team.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

namespace qnext {
namespace {

// Larger than every cache that a core has for itself, small enough for a laptop.
constexpr int stream_bytes = 256 << 20;

// The shortest of at least three runs, in seconds; runs are repeated for 0.3 seconds.
template <class Run>
double shortest(const Exec& exec, const Run& run) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  run();  // pages are touched, primitives made
  fence(exec, "peak: warm-up before the clock");
  double best = std::numeric_limits<double>::infinity();
  const auto begin = Clock::now();
  for (int count = 0; count < 3 || seconds_since(begin) < 0.3; ++count) {
    const auto start = Clock::now();
    run();
    fence(exec, "peak: end of the timed work");
    best = std::min(best, seconds_since(start));
  }
  return best;
}

template <class T>
double product_peak(int extent) {
  const Exec exec;
  const Tensor<T, 2> a("peak: a", extent, extent), b("peak: b", extent, extent);
  const Tensor<T, 2> c("peak: c", extent, extent);
  Kokkos::deep_copy(a, T(0.5));
  Kokkos::deep_copy(b, T(0.25));
  const double seconds =
      shortest(exec, [&] { matmul<T, T>(exec, Op::none, a, Op::transpose, b, c); });
  return 2.0 * std::pow(extent, 3) / seconds;
}

// Memory is first written by the threads that read it later.
Tensor<float, 1> stream(const char* name, std::int64_t bytes = stream_bytes) {
  const Tensor<float, 1> values(Kokkos::view_alloc(Kokkos::WithoutInitializing, std::string(name)),
                                bytes / std::int64_t{sizeof(float)});
  Kokkos::parallel_for(
      "peak::fill", Kokkos::RangePolicy<Exec>(0, values.extent(0)),
      KOKKOS_LAMBDA(const std::int64_t i) { values(i) = 1.0f; });
  return values;
}

}  // namespace

double measured_product_peak(DataType type, int extent) {
  return type == DataType::bf16      ? product_peak<bf16>(extent)
         : type == DataType::float32 ? product_peak<float>(extent)
                                     : product_peak<double>(extent);
}

double measured_copy_rate() {
  const Exec exec;
  const auto from = stream("peak: from"), to = stream("peak: to");
  return 2.0 * stream_bytes / shortest(exec, [&] {
           Kokkos::parallel_for(
               "peak::copy", Kokkos::RangePolicy<Exec>(exec, 0, from.extent(0)),
               KOKKOS_LAMBDA(const int i) { to(i) = from(i); });
         });
}

double measured_read_rate(std::int64_t bytes) {
  constexpr int block = 16384;
  const Exec exec;
  const auto from = stream("peak: from", bytes);
  const int blocks = static_cast<int>(from.extent(0) / block);
  const Tensor<float, 1> sums("peak: sums", blocks);
  return static_cast<double>(blocks) * block * sizeof(float) / shortest(exec, [&] {
           Kokkos::parallel_for(
               "peak::read", row_policy(exec, blocks), KOKKOS_LAMBDA(const RowTeam& team) {
                 const float* const begin = from.data() + std::int64_t{block} * team.league_rank();
                 sums(team.league_rank()) = dot<float>(team, block, begin, begin);
               });
         });
}

}  // namespace qnext
