// SPDX-License-Identifier: Apache-2.0
#include "core/matmul.hpp"

#include "core/bf16.hpp"
#include "core/matmul_fallback.hpp"
#include "core/require.hpp"
#if defined(KOKKOS_ENABLE_CUDA)
#include "core/matmul_cublas.hpp"
#elif !defined(KOKKOS_ENABLE_HIP)
#include "core/matmul_cpu.hpp"
#include "core/matmul_few_rows.hpp"
#include "core/matmul_onednn.hpp"
#endif

#include <string>

namespace qnext {
namespace {

std::string extents(const char* name, std::size_t rows, std::size_t columns, bool transposed) {
  const std::string text = std::to_string(rows) + " x " + std::to_string(columns);
  return std::string(name) + " (" + text + (transposed ? ")^T" : ")");
}

}  // namespace

template <class In, class Out>
void matmul(const Exec& exec, Op op_a, const Tensor<const In, 2>& a, Op op_b,
            const Tensor<const In, 2>& b, const Tensor<Out, 2>& c, Write write) {
  const bool turn_a = op_a == Op::transpose, turn_b = op_b == Op::transpose;
  if (a.extent(turn_a ? 1 : 0) != c.extent(0) || b.extent(turn_b ? 0 : 1) != c.extent(1) ||
      a.extent(turn_a ? 0 : 1) != b.extent(turn_b ? 1 : 0)) {
    require(false, "matmul: extents do not fit: " + extents("A", a.extent(0), a.extent(1), turn_a) +
                       " " + extents("B", b.extent(0), b.extent(1), turn_b) + " into " +
                       extents("C", c.extent(0), c.extent(1), false));
  }
  if (c.size() == 0) {
    return;
  }
#if defined(KOKKOS_ENABLE_CUDA)
  // The library chooses a kernel by the number of rows.
  const bool few = !turn_a && turn_b && a.extent(0) <= few_rows;
  if (!few && a.size() > 0) {
    matmul_cublas<In, Out>(exec, op_a, a, op_b, b, c, write);
  } else {
    matmul_fallback<In, Out>(exec, op_a, a, op_b, b, c, write);
  }
#elif defined(KOKKOS_ENABLE_HIP)
  matmul_fallback<In, Out>(exec, op_a, a, op_b, b, c, write);
#else
  if (!turn_a && turn_b && a.extent(0) <= few_rows) {
    matmul_few_rows<In, Out>(exec, a, b, c, write == Write::add);
  } else {
    matmul_cpu<In, Out>(exec, op_a, a, op_b, b, c, write);
  }
#endif
}

template <class In, class Out>
void matmul_grouped(const Exec& exec, const Tensor<const int, 1>& offset,
                    const Tensor<const In, 2>& a, Op op_b, const Tensor<const In, 3>& b,
                    const Tensor<Out, 2>& c, Write write) {
  const bool turn_b = op_b == Op::transpose;
  if (a.extent(0) != c.extent(0) || a.extent(1) != b.extent(turn_b ? 2 : 1) ||
      c.extent(1) != b.extent(turn_b ? 1 : 2) || offset.extent(0) != b.extent(0) + 1) {
    require(false,
            "matmul_grouped: extents do not fit: " + extents("A", a.extent(0), a.extent(1), false) +
                " " + std::to_string(b.extent(0)) + " of " +
                extents("B", b.extent(1), b.extent(2), turn_b) + " into " +
                extents("C", c.extent(0), c.extent(1), false) + ", " +
                std::to_string(offset.extent(0)) + " offsets");
  }
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
  matmul_grouped_fallback<In, Out>(exec, offset, a, op_b, b, c, write);
#else
  matmul_grouped_cpu<In, Out>(exec, offset, a, op_b, b, c, write);
#endif
}

template <class In, class Out>
void matmul_grouped_gradient(const Exec& exec, const Tensor<const int, 1>& offset,
                             const Tensor<const In, 2>& a, const Tensor<const In, 2>& c,
                             const Tensor<Out, 3>& b) {
  if (a.extent(0) != c.extent(0) || b.extent(1) != a.extent(1) || b.extent(2) != c.extent(1) ||
      offset.extent(0) != b.extent(0) + 1) {
    require(false, "matmul_grouped_gradient: extents do not fit: " +
                       extents("A", a.extent(0), a.extent(1), true) + " " +
                       extents("C", c.extent(0), c.extent(1), false) + " into " +
                       std::to_string(b.extent(0)) + " of " +
                       extents("B", b.extent(1), b.extent(2), false) + ", " +
                       std::to_string(offset.extent(0)) + " offsets");
  }
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
  matmul_grouped_gradient_fallback<In, Out>(exec, offset, a, c, b);
#else
  matmul_grouped_gradient_cpu<In, Out>(exec, offset, a, c, b);
#endif
}

std::int64_t matmul_workspace_bytes() {
#if defined(KOKKOS_ENABLE_CUDA)
  return cublas_workspace_bytes();
#elif defined(KOKKOS_ENABLE_HIP)
  return 0;
#else
  return onednn::workspace_bytes();
#endif
}

std::int64_t matmul_planned_workspace_bytes(DataType type) {
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP)
  (void)type;
  return matmul_workspace_bytes();
#else
  return matmul_cpu_workspace_bytes(type);
#endif
}

#define QNEXT_INSTANTIATE(In, Out)                                                                 \
  template void matmul<In, Out>(const Exec&, Op, const Tensor<const In, 2>&, Op,                   \
                                const Tensor<const In, 2>&, const Tensor<Out, 2>&, Write);         \
  template void matmul_grouped<In, Out>(const Exec&, const Tensor<const int, 1>&,                  \
                                        const Tensor<const In, 2>&, Op,                            \
                                        const Tensor<const In, 3>&, const Tensor<Out, 2>&, Write); \
  template void matmul_grouped_gradient<In, Out>(                                                  \
      const Exec&, const Tensor<const int, 1>&, const Tensor<const In, 2>&,                        \
      const Tensor<const In, 2>&, const Tensor<Out, 3>&);
QNEXT_INSTANTIATE(double, double)
QNEXT_INSTANTIATE(float, float)
QNEXT_INSTANTIATE(bf16, bf16)
QNEXT_INSTANTIATE(bf16, float)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
