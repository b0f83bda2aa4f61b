// SPDX-License-Identifier: Apache-2.0
#include "core/arena.hpp"

namespace qnext {

Arena::Arena(std::int64_t bytes)
    : memory_(Kokkos::view_alloc("arena", Kokkos::WithoutInitializing), bytes) {}

Arena Arena::part(std::int64_t bytes) {
  Arena part;
  part.memory_ = Tensor<std::byte, 1>(static_cast<std::byte*>(take("part", bytes)), bytes);
  return part;
}

void* Arena::take(const char* name, std::int64_t bytes) {
  const std::int64_t offset = top_;
  top_ += (bytes + alignment - 1) / alignment * alignment;
  if (measuring()) {
    live_.push_back({room_ + name, offset, bytes});
    if (top_ > peak_) {
      peak_ = top_;
      at_peak_ = live_;
    }
    return nullptr;
  }
  peak_ = top_ > peak_ ? top_ : peak_;
  require(top_ <= static_cast<std::int64_t>(memory_.extent(0)),
          "the arena of " + std::to_string(memory_.extent(0)) + " bytes has no room for " +
              std::to_string(bytes) + " bytes of " + room_ + name + " at offset " +
              std::to_string(offset));
  return memory_.data() + offset;
}

}  // namespace qnext
