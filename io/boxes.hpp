// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "parallel/communicator.hpp"

#include <cstddef>
#include <vector>

namespace qnext {

/// Copies the elements of a shard, of so many bytes each, to their places in the global tensor.
void place_boxes(const Shard& shard, int element_bytes, const std::byte* from, std::byte* whole);

/// Sends what this rank holds of a tensor, its boxes first.
void send_boxes(const Communicator& ranks, int to, const Shard& shard,
                std::vector<std::byte>& elements);

/// Receives them and puts them in their places. The other rank's boxes are elsewhere, but as many
/// as those of `shard`.
void receive_boxes(const Communicator& ranks, int from, const Shard& shard, int element_bytes,
                   std::byte* whole);

}  // namespace qnext
