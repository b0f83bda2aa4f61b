// SPDX-License-Identifier: Apache-2.0
#include "io/boxes.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace qnext {
namespace {

constexpr std::size_t numbers_of_box = 8;

template <class T>
HostTensor<T, 1> view_of(std::vector<T>& numbers) {
  return HostTensor<T, 1>(numbers.data(), numbers.size());
}

}  // namespace

// In runs that are contiguous in both: what lies behind the last axis that a box does not fill.
void place_boxes(const Shard& shard, int element_bytes, const std::byte* from, std::byte* whole) {
  const auto& global = shard.global_extent;
  const std::array<std::int64_t, 4> stride{global[1] * global[2] * global[3], global[2] * global[3],
                                           global[3], 1};
  for (const Box& box : shard.boxes) {
    int axis = 3;
    std::int64_t run = box.extent[3], begin = 0;
    for (; axis > 0 && box.extent[axis] == global[axis]; --axis) {
      run *= box.extent[axis - 1];
    }
    for (int a = 0; a < 4; ++a) {
      begin += box.offset[a] * stride[a];
    }
    for (std::int64_t i = 0; i < box.elements(); i += run) {
      std::int64_t place = begin, rest = i / run;
      for (int a = axis - 1; a >= 0; --a) {
        place += rest % box.extent[a] * stride[a];
        rest /= box.extent[a];
      }
      std::memcpy(whole + place * element_bytes, from, run * element_bytes);
      from += run * element_bytes;
    }
  }
}

void send_boxes(const Communicator& ranks, int to, const Shard& shard,
                std::vector<std::byte>& elements) {
  std::vector<std::int64_t> numbers;
  for (const Box& box : shard.boxes) {
    numbers.insert(numbers.end(), box.offset.begin(), box.offset.end());
    numbers.insert(numbers.end(), box.extent.begin(), box.extent.end());
  }
  ranks.send(view_of(numbers), to);
  ranks.send(view_of(elements), to);
}

void receive_boxes(const Communicator& ranks, int from, const Shard& shard, int element_bytes,
                   std::byte* whole) {
  std::vector<std::int64_t> numbers(numbers_of_box * shard.boxes.size());
  ranks.receive(view_of(numbers), from);
  Shard theirs = shard;
  for (std::size_t b = 0; b < theirs.boxes.size(); ++b) {
    const auto box = numbers.begin() + static_cast<std::ptrdiff_t>(numbers_of_box * b);
    std::copy_n(box, 4, theirs.boxes[b].offset.begin());
    std::copy_n(box + 4, 4, theirs.boxes[b].extent.begin());
  }
  std::vector<std::byte> elements(theirs.local_elements() * element_bytes);
  ranks.receive(view_of(elements), from);
  place_boxes(theirs, element_bytes, elements.data(), whole);
}

}  // namespace qnext
