// SPDX-License-Identifier: Apache-2.0
#include "core/matmul_few_rows.hpp"

#include "core/bf16.hpp"
#include "core/vector.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace qnext {
namespace {

// Rows of A that share the reading of B, and rows of B that share that of A: their sums fit the
// registers.
inline constexpr int rows_at_once = 8;
inline constexpr int most_columns = 4;

constexpr int columns_for(int rows) {
  return rows <= 4 ? most_columns : 2;
}

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
    using Function = void (FewRows::*)(int, int, int) const;
    static constexpr auto kernels = []<int... m>(std::integer_sequence<int, m...>) {
      return std::array<Function, rows_at_once>{&FewRows::template columns<m + 1>...};
    }
    (std::make_integer_sequence<int, rows_at_once>());
    for (int m = 0; m < M; m += rows_at_once) {
      (this->*kernels[std::min(rows_at_once, M - m) - 1])(m, index * range,
                                                          std::min(N, (index + 1) * range));
    }
  }

  // Rows [m, m + rows) and columns [n, end) of c.
  template <int rows>
  void columns(int m, int n, int end) const {
    constexpr int width = columns_for(rows);
    for (; n + width <= end; n += width) {
      dot_products<rows, width>(m, n);
    }
    for (; n < end; ++n) {
      dot_products<rows, 1>(m, n);
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
        const In* const from = b + std::int64_t(n + j) * K + k;
        prefetch_ahead(from);
        weight[j] = read<Real>(from);
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
