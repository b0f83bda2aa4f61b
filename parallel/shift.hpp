// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "parallel/communicator.hpp"

namespace qnext {

/// `to` gets what the left neighbour has in `from`; the first rank's stays as it is.
template <class From, class To>
void shift_right(const Communicator& group, const From& from, const To& to) {
  std::vector<Parcel> sends, receives;
  if (group.rank() + 1 < group.ranks()) {
    sends.push_back({group.rank() + 1, buffer_of(from)});
  }
  if (group.rank() > 0) {
    receives.push_back({group.rank() - 1, buffer_of(to)});
  }
  group.exchange(sends, receives);
}

/// `to` gets what the right neighbour has in `from`; the last rank's stays as it is.
template <class From, class To>
void shift_left(const Communicator& group, const From& from, const To& to) {
  std::vector<Parcel> sends, receives;
  if (group.rank() > 0) {
    sends.push_back({group.rank() - 1, buffer_of(from)});
  }
  if (group.rank() + 1 < group.ranks()) {
    receives.push_back({group.rank() + 1, buffer_of(to)});
  }
  group.exchange(sends, receives);
}

/// The same to the right in a circle, without waiting: the first rank gets what the last one has.
/// Meanwhile `from` may be read.
template <class From, class To>
[[nodiscard]] Transfer start_rotation(const Communicator& group, const From& from, const To& to) {
  const int ranks = group.ranks(), rank = group.rank();
  return group.start({{(rank + 1) % ranks, buffer_of(from)}},
                     {{(rank + ranks - 1) % ranks, buffer_of(to)}});
}

}  // namespace qnext
