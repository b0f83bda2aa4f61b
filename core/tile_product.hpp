// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace qnext::tile {

/// An operand of a product on one CPU thread: element (i, j) lies at data[i * row + j * column];
/// one of the two strides is 1.
template <class Real>
struct Strided {
  const Real* data;
  std::int64_t row;
  std::int64_t column;
};

/// c += scale a b, with a (M, K), b (K, N) and c (M, N) of that stride, by the vector units of one
/// CPU thread. The sum of an element runs over k in blocks of 256 and does not depend on M or N.
/// Real is float or double.
template <class Real>
void multiply_add_on_cpu(int M, int N, int K, Real scale, const Strided<Real>& a,
                         const Strided<Real>& b, Real* c, std::int64_t stride);

}  // namespace qnext::tile
