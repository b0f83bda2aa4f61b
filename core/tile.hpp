// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

namespace qnext::tile {

/// A small row-major matrix in the scratch memory of one team.
template <class Real>
struct Tile {
  Real* data;
  int rows;
  int columns;
  int stride;  // elements from one row to the next

  KOKKOS_FUNCTION Real& operator()(int i, int j) const { return data[i * stride + j]; }

  KOKKOS_FUNCTION Tile block(int row, int column, int block_rows, int block_columns) const {
    return {data + row * stride + column, block_rows, block_columns, stride};
  }

  KOKKOS_FUNCTION operator Tile<const Real>() const { return {data, rows, columns, stride}; }
};

enum class Form { plain, transposed };

}  // namespace qnext::tile
