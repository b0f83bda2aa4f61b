// SPDX-License-Identifier: Apache-2.0
#include "parallel/ordered_sum.hpp"

#include "core/parts.hpp"
#include "parallel/row_split.hpp"

#include <algorithm>

namespace qnext {
namespace {

// Numbers that a team adds at once; buffers of parameters are a multiple of it.
constexpr int row = 64;
constexpr std::int64_t largest_piece = std::int64_t{1} << 24;  // rows

}  // namespace

template <class Real>
void ordered_sum(const Exec& exec, const Communicator& group, const Tensor<Real, 1>& values,
                 const Tensor<Real, 1>& received) {
  const int ranks = group.ranks();
  if (ranks == 1) {
    return;
  }
  const auto count = static_cast<std::int64_t>(values.size());
  const auto room = static_cast<std::int64_t>(received.size()) / (ranks - 1);
  const int width = count % row == 0 && room >= row ? row : 1;
  require(room >= width, "ordered_sum: no room for the numbers of the other ranks");
  const std::int64_t largest = std::min<std::int64_t>(room / width * ranks, largest_piece);
  for (std::int64_t begin = 0; begin < count; begin += largest * width) {
    const int rows = static_cast<int>(std::min(largest, (count - begin) / width));
    const RowSplit split(group, rows, 1);
    const Tensor<Real, 2> piece(values.data() + begin, rows, width);
    const Tensor<Real, 2> mine(piece.data() + std::int64_t{1} * split.token_rows().first * width,
                               split.rows(), width);
    split.sum<Real, Real>(exec, piece, received, mine);
    split.share<Real>(piece);
  }
}

std::int64_t ordered_sum_sent(int ranks, int rank, std::int64_t count, std::int64_t room) {
  if (ranks == 1) {
    return 0;
  }
  const int width = count % row == 0 && room / (ranks - 1) >= row ? row : 1;
  const std::int64_t largest =
      std::min<std::int64_t>(room / (ranks - 1) / width * ranks, largest_piece);
  std::int64_t sent = 0;
  for (std::int64_t begin = 0; begin < count; begin += largest * width) {
    const std::int64_t rows = std::min(largest, (count - begin) / width);
    const std::int64_t mine = part_begin(rows, rank + 1, ranks) - part_begin(rows, rank, ranks);
    sent += (rows - mine + mine * (ranks - 1)) * width;
  }
  return sent;
}

std::int64_t ordered_sum_room(int ranks, std::int64_t count) {
  return (ranks - 1) * ((count / row + ranks) / ranks * row);
}

template void ordered_sum<float>(const Exec&, const Communicator&, const Tensor<float, 1>&,
                                 const Tensor<float, 1>&);
template void ordered_sum<double>(const Exec&, const Communicator&, const Tensor<double, 1>&,
                                  const Tensor<double, 1>&);
template void ordered_sum<int>(const Exec&, const Communicator&, const Tensor<int, 1>&,
                               const Tensor<int, 1>&);

}  // namespace qnext
