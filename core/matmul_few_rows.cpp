// SPDX-License-Identifier: Apache-2.0
#include "core/matmul_few_rows.hpp"

#include "core/bf16.hpp"
#include "core/vector.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace qnext {
namespace {

// Rows of B that share the reading of A, and rows of A that share the reading of B.
inline constexpr int shared_rows = 2;
inline constexpr int rows_at_once = 8;

// A thread takes ranges of rows of B and sums each dot product in the lanes of one vector. More
// rows of A than are multiplied at once find the rows of B in the first cache.
template <class In, class Out>
struct FewRows {
  using Real = Accum<In>;
  using Lane = Lanes<Real>;

  static constexpr int range = 16;  // rows of B

  const In* a;  // (M, K)
  const In* b;  // (N, K)
  Out* c;       // (M, N)
  int M, N, K;
  bool add;

  void launch(const Exec& exec) const {
    Kokkos::parallel_for("matmul::few_rows",
                         Kokkos::RangePolicy<Exec>(exec, 0, (N + range - 1) / range), *this);
  }

  void operator()(int index) const {
    const int end = std::min(N, (index + 1) * range);
    int n = index * range;
    for (; n + shared_rows <= end; n += shared_rows) {
      rows_of<shared_rows>(n);
    }
    for (; n < end; ++n) {
      rows_of<1>(n);
    }
  }

  // Columns [n, n + width) of c for all rows of a.
  template <int width>
  void rows_of(int n) const {
    using Function = void (FewRows::*)(int, int) const;
    static constexpr auto kernels = []<int... m>(std::integer_sequence<int, m...>) {
      return std::array<Function, rows_at_once>{&FewRows::template dot_products<m + 1, width>...};
    }
    (std::make_integer_sequence<int, rows_at_once>());
    for (int m = 0; m < M; m += rows_at_once) {
      (this->*kernels[std::min(rows_at_once, M - m) - 1])(m, n);
    }
  }

  // Rows [m, m + rows) and columns [n, n + width) of c.
  template <int rows, int width>
  void dot_products(int m, int n) const {
    typename Lane::Vector sum[rows][width] = {};
    const int whole = K / Lane::count * Lane::count;
    for (int k = 0; k < whole; k += Lane::count) {
      typename Lane::Vector weight[width];
#pragma GCC unroll 4
      for (int j = 0; j < width; ++j) {
        weight[j] = read<Real>(b + std::int64_t(n + j) * K + k);
      }
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
        const auto x = read<Real>(a + std::int64_t(m + i) * K + k);
#pragma GCC unroll 4
        for (int j = 0; j < width; ++j) {
          sum[i][j] += x * weight[j];
        }
      }
    }
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < width; ++j) {
        Real total = sum_of_lanes<Real>(sum[i][j]);
        for (int k = whole; k < K; ++k) {
          total += static_cast<Real>(a[std::int64_t(m + i) * K + k]) *
                   static_cast<Real>(b[std::int64_t(n + j) * K + k]);
        }
        Out& element = c[std::int64_t(m + i) * N + n + j];
        element = Out(add ? static_cast<Real>(element) + total : total);
      }
    }
  }
};

}  // namespace

template <class In, class Out>
void matmul_few_rows(const Exec& exec, const Tensor<const In, 2>& a, const Tensor<const In, 2>& b,
                     const Tensor<Out, 2>& c, bool add) {
  FewRows<In, Out>{a.data(),         b.data(),         c.data(), int(a.extent(0)),
                   int(b.extent(0)), int(a.extent(1)), add}
      .launch(exec);
}

#define QNEXT_INSTANTIATE(In, Out)                                                \
  template void matmul_few_rows<In, Out>(const Exec&, const Tensor<const In, 2>&, \
                                         const Tensor<const In, 2>&, const Tensor<Out, 2>&, bool);
QNEXT_INSTANTIATE(double, double)
QNEXT_INSTANTIATE(float, float)
QNEXT_INSTANTIATE(bf16, bf16)
QNEXT_INSTANTIATE(bf16, float)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
