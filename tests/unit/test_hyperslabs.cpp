// SPDX-License-Identifier: Apache-2.0
#include "io/hyperslabs.hpp"

#include <gtest/gtest.h>

#include <map>

namespace qnext {
namespace {

using Indices = std::vector<std::int64_t>;

// Every element of the slabs with its number on this rank: the place in the global tensor.
std::map<std::int64_t, Indices> elements_of(const std::vector<Hyperslab>& slabs) {
  std::map<std::int64_t, Indices> places;
  for (const Hyperslab& slab : slabs) {
    std::int64_t count = 0;
    Indices at(slab.offset.size(), 0);
    for (bool more = true; more; ++count) {
      Indices place = slab.offset;
      for (std::size_t axis = 0; axis < at.size(); ++axis) {
        place[axis] += at[axis];
      }
      EXPECT_TRUE(places.emplace(slab.begin + count, place).second) << "an element twice";
      more = false;
      for (std::size_t axis = at.size(); axis-- > 0;) {
        if (++at[axis] < slab.extent[axis]) {
          more = true;
          break;
        }
        at[axis] = 0;
      }
    }
    EXPECT_EQ(count, slab.elements);
  }
  return places;
}

// Any range of any shard has the elements that the whole shard has there, and no others.
TEST(Hyperslabs, CoverARangeOnce) {
  Shard boxed = Shard::whole({14, 3, 5});
  boxed.boxes = {{{1}, {2, 3, 5, 1}}, {{7, 1, 2}, {4, 2, 3, 1}}, {{13}, {1, 3, 5, 1}}};
  for (const Shard& shard : {Shard::whole({7}), Shard::whole({3, 4}), Shard::whole({2, 3, 2, 2}),
                             Shard::part({5, 7}, 1, 1, 2), boxed}) {
    const std::int64_t all = [&] {
      std::int64_t sum = 0;
      for (const Box& box : shard.boxes) {
        sum += box.elements();
      }
      return sum;
    }();
    const auto whole = elements_of(hyperslabs(shard, 0, all, 1));
    ASSERT_EQ(static_cast<std::int64_t>(whole.size()), all);
    for (std::int64_t begin = 0; begin <= all; ++begin) {
      for (std::int64_t end = begin; end <= all; ++end) {
        for (const std::int64_t most : {1, 6, 1000}) {
          const auto part = elements_of(hyperslabs(shard, begin, end, most));
          ASSERT_EQ(part, (std::map<std::int64_t, Indices>(whole.lower_bound(begin),
                                                           whole.lower_bound(end))));
        }
      }
    }
  }
}

// A row that is cut at both ends, whole rows in between; then in pieces.
TEST(Hyperslabs, AreFew) {
  const auto slabs = hyperslabs(Shard::whole({10, 4, 3}), 5, 100, 1000);
  ASSERT_EQ(slabs.size(), 5u);
  EXPECT_EQ(slabs[0].offset, (Indices{0, 1, 2}));
  EXPECT_EQ(slabs[0].extent, (Indices{1, 1, 1}));
  EXPECT_EQ(slabs[1].offset, (Indices{0, 2, 0}));
  EXPECT_EQ(slabs[1].extent, (Indices{1, 2, 3}));
  EXPECT_EQ(slabs[2].offset, (Indices{1, 0, 0}));
  EXPECT_EQ(slabs[2].extent, (Indices{7, 4, 3}));
  EXPECT_EQ(slabs[3].extent, (Indices{1, 1, 3}));
  EXPECT_EQ(slabs[4].offset, (Indices{8, 1, 0}));
  EXPECT_EQ(slabs[4].extent, (Indices{1, 1, 1}));
  EXPECT_EQ(hyperslabs(Shard::whole({10, 4, 3}), 0, 120, 36).size(), 4u);
}

}  // namespace
}  // namespace qnext
