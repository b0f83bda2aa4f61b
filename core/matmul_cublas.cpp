// SPDX-License-Identifier: Apache-2.0
#include "core/matmul_cublas.hpp"

#include "core/bf16.hpp"
#include "core/require.hpp"

#include <cublas_v2.h>
#include <string>

namespace qnext {
namespace {

// Given to cuBLAS once, so that equal calls find equal memory and choose equal kernels.
constexpr std::size_t workspace_bytes = std::size_t{32} << 20;

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw EnvironmentError(std::string("cuBLAS: ") + call + ": " + cublasGetStatusString(status));
  }
}

// Lives until the process ends: the driver may be gone before static objects are.
cublasHandle_t handle_on(const Exec& exec) {
  static cublasHandle_t handle = [] {
    cublasHandle_t created = nullptr;
    check(cublasCreate(&created), "cublasCreate");
    return created;
  }();
  static void* const workspace = Kokkos::kokkos_malloc<Exec::memory_space>(workspace_bytes);
  check(cublasSetStream(handle, exec.cuda_stream()), "cublasSetStream");
  check(cublasSetWorkspace(handle, workspace, workspace_bytes), "cublasSetWorkspace");
  return handle;
}

template <class T>
constexpr cudaDataType_t cuda_type() {
  return data_type_of<T>() == DataType::bf16      ? CUDA_R_16BF
         : data_type_of<T>() == DataType::float32 ? CUDA_R_32F
                                                  : CUDA_R_64F;
}

}  // namespace

// cuBLAS stores by columns and so sees every matrix transposed: C^T = op(B)^T op(A)^T.
template <class In, class Out>
void matmul_cublas(const Exec& exec, Op op_a, const Tensor<const In, 2>& a, Op op_b,
                   const Tensor<const In, 2>& b, const Tensor<Out, 2>& c, Write write) {
  using Real = Accum<In>;
  const auto operation = [](Op op) { return op == Op::none ? CUBLAS_OP_N : CUBLAS_OP_T; };
  const Real one = 1, beta = write == Write::add ? 1 : 0;
  const int rows = int(c.extent(0)), columns = int(c.extent(1));
  const int terms = int(a.extent(op_a == Op::none ? 1 : 0));
  const cublasComputeType_t compute =
      sizeof(Real) == sizeof(double) ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
  check(cublasGemmEx(handle_on(exec), operation(op_b), operation(op_a), columns, rows, terms, &one,
                     b.data(), cuda_type<In>(), int(b.extent(1)), a.data(), cuda_type<In>(),
                     int(a.extent(1)), &beta, c.data(), cuda_type<Out>(), columns, compute,
                     CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}

std::int64_t cublas_workspace_bytes() {
  return static_cast<std::int64_t>(workspace_bytes);
}

#define QNEXT_INSTANTIATE(In, Out)                                                      \
  template void matmul_cublas<In, Out>(const Exec&, Op, const Tensor<const In, 2>&, Op, \
                                       const Tensor<const In, 2>&, const Tensor<Out, 2>&, Write);
QNEXT_INSTANTIATE(double, double)
QNEXT_INSTANTIATE(float, float)
QNEXT_INSTANTIATE(bf16, bf16)
QNEXT_INSTANTIATE(bf16, float)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
