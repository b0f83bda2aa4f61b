// SPDX-License-Identifier: Apache-2.0
#include "core/subnormals.hpp"

#include "core/fence.hpp"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace qnext {
namespace {

// The control register belongs to a thread, so that each sets its own: one iteration a thread.
struct SetControlRegister {
  void operator()(const int) const {
#if defined(__SSE2__)
    constexpr unsigned int flush_results = 0x8000, operands_are_zero = 0x0040;
    _mm_setcsr(_mm_getcsr() | flush_results | operands_are_zero);
#endif
  }
};

}  // namespace

void flush_subnormals() {
  using Host = Kokkos::DefaultHostExecutionSpace;
  SetControlRegister{}(0);
  Kokkos::parallel_for(
      "subnormals::flush",
      Kokkos::RangePolicy<Host, Kokkos::Schedule<Kokkos::Static>>(0, Host().concurrency()),
      SetControlRegister{});
  Kokkos::fence();
}

}  // namespace qnext
