// SPDX-License-Identifier: Apache-2.0
#include "io/hyperslabs.hpp"

#include <algorithm>

namespace qnext {
namespace {

class Cut {
 public:
  Cut(int rank, std::int64_t most) : rank_(rank), most_(most) {}

  /// Elements begin ... end - 1 of a box whose first element is number `first` of this rank and
  /// whose extents before `axis` are 1. Of the rows below that axis, those at the ends may be cut.
  void add(const Box& box, int axis, std::int64_t first, std::int64_t begin, std::int64_t end) {
    if (begin >= end) {
      return;
    }
    const std::int64_t row = box.elements() / box.extent[axis];
    const std::int64_t whole_begin = (begin + row - 1) / row, whole_end = end / row;
    if (whole_begin > whole_end) {
      add_row(box, axis, first, whole_end, begin, end);
      return;
    }
    add_row(box, axis, first, whole_begin - 1, begin, whole_begin * row);
    const std::int64_t step = std::max<std::int64_t>(1, most_ / row);
    for (std::int64_t r = whole_begin; r < whole_end; r += step) {
      add_rows(box, axis, first, r, std::min(step, whole_end - r));
    }
    add_row(box, axis, first, whole_end, whole_end * row, end);
  }

  std::vector<Hyperslab> slabs;

 private:
  /// What begin ... end - 1 is of row r.
  void add_row(Box box, int axis, std::int64_t first, std::int64_t r, std::int64_t begin,
               std::int64_t end) {
    if (begin < end) {
      const std::int64_t before = box.elements() / box.extent[axis] * r;
      box.offset[axis] += r;
      box.extent[axis] = 1;
      add(box, axis + 1, first + before, begin - before, end - before);
    }
  }

  void add_rows(Box box, int axis, std::int64_t first, std::int64_t r, std::int64_t rows) {
    first += box.elements() / box.extent[axis] * r;
    box.offset[axis] += r;
    box.extent[axis] = rows;
    slabs.push_back({{box.offset.begin(), box.offset.begin() + rank_},
                     {box.extent.begin(), box.extent.begin() + rank_},
                     first,
                     box.elements()});
  }

  int rank_;
  std::int64_t most_;
};

}  // namespace

std::vector<Hyperslab> hyperslabs(const Shard& shard, std::int64_t begin, std::int64_t end,
                                  std::int64_t most) {
  Cut cut(shard.rank, most);
  std::int64_t first = 0;
  for (const Box& box : shard.boxes) {
    const std::int64_t elements = box.elements();
    cut.add(box, 0, first, std::max<std::int64_t>(0, begin - first),
            std::min(elements, end - first));
    first += elements;
  }
  return std::move(cut.slabs);
}

}  // namespace qnext
