// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace qnext::tile {

/// An operand of a product on one CPU thread: element (i, j) lies at data[i * row + j * column];
/// one of the two strides is 1.
template <class T>
struct Strided {
  const T* data;
  std::int64_t row;
  std::int64_t column;
};

/// c += scale a b, with a (M, K), b (K, N) and c (M, N) of that stride, by the vector units of one
/// CPU thread. The sum of an element runs over k in blocks of 256 and does not depend on M or N.
/// Real is float or double, b may be bf16 where Real is float.
template <class Real, class T>
void multiply_add_on_cpu(int M, int N, int K, Real scale, const Strided<Real>& a,
                         const Strided<T>& b, Real* c, std::int64_t stride);

/// to (rows, columns) = from^T, squares of vectors at a time.
template <class Real>
void transpose_on_cpu(int rows, int columns, const Real* from, std::int64_t from_stride, Real* to,
                      std::int64_t stride);

}  // namespace qnext::tile
