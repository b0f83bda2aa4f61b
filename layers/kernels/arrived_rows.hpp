// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

namespace qnext {

/// place(r) = row among the ordered rows of the row that arrived as number r, n of them. Piece p
/// begins at arrived(p), in rising order, and there at ordered(p); (G) both.
void place_pieces(const Exec& exec, int n, const Tensor<const int, 1>& arrived,
                  const Tensor<const int, 1>& ordered, const Tensor<int, 1>& place);

/// Which of two rows place(r) names: that where row r goes to, or that where it comes from.
enum class Place { to, from };

/// to(place(r), :) = from(r, :) or to(r, :) = from(place(r), :) for r < n. Not the same memory.
template <class T>
void move_rows(const Exec& exec, int n, Place meaning, const Tensor<const int, 1>& place,
               const Tensor<const T, 2>& from, const Tensor<T, 2>& to);

/// rows(place(t, k)) = x(t, k) where there is such a row.
template <class Real>
void spread_choices(const Exec& exec, const Tensor<const Real, 2>& x,
                    const Tensor<const int, 2>& place, const Tensor<Real, 2>& rows);

/// x(t, k) = rows(place(t, k)), 0 where there is no such row.
template <class Real>
void gather_choices(const Exec& exec, const Tensor<const Real, 2>& rows,
                    const Tensor<const int, 2>& place, const Tensor<Real, 2>& x);

}  // namespace qnext
