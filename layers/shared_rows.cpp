// SPDX-License-Identifier: Apache-2.0
#include "layers/shared_rows.hpp"

#include <algorithm>

namespace qnext {

template <class Storage>
SharedRows<Storage> SharedRows<Storage>::reserve(Arena& arena, const ProcessGrid& grid,
                                                 const MicrobatchShape& shape, int width) {
  SharedRows rows;
  rows.split_ = RowSplit(grid, shape.tokens, shape.sequences);
  if (rows.alone()) {
    return rows;
  }
  const int T = shape.tokens, received = rows.split_.received_rows();
  rows.input_ = arena.reserve<Storage, 2>("all_rows", T, width);
  rows.partial_ = arena.reserve<Storage, 2>("partial_rows", T, width);
  const auto other = arena.reserve<Storage, 2>("received_rows", std::max(T, received), width);
  rows.gradient_ = Tensor<Storage, 2>(other.data(), T, width);
  rows.received_ = Tensor<Storage, 1>(other.data(), std::int64_t{1} * received * width);
  return rows;
}

template <class Storage>
Tensor<const Storage, 2> SharedRows<Storage>::input(const Exec& exec,
                                                    const Tensor<const Storage, 2>& mine) const {
  if (alone()) {
    return mine;
  }
  split_.template gather<Storage>(exec, mine, input_);
  return input_;
}

template <class Storage>
Tensor<const Storage, 2> SharedRows<Storage>::gradient(const Exec& exec,
                                                       const Tensor<const Storage, 2>& mine) const {
  if (alone()) {
    return mine;
  }
  split_.template gather<Storage>(exec, mine, gradient_);
  return gradient_;
}

template <class Storage>
void SharedRows<Storage>::sum(const Exec& exec, const Tensor<Storage, 2>& mine, Write write) const {
  if (!alone()) {
    split_.template sum<Storage, Storage>(exec, partial_, received_, mine, write);
  }
}

template class SharedRows<bf16>;
template class SharedRows<float>;
template class SharedRows<double>;

}  // namespace qnext
