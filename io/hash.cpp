// SPDX-License-Identifier: Apache-2.0
#include "io/hash.hpp"

#define XXH_STATIC_LINKING_ONLY  // the state as a type, aligned for the vector units
#include <xxhash.h>

#include <cstdint>

namespace qnext {

struct Hash::State {
  XXH3_state_t state;
};

Hash::Hash() : state_(std::make_unique<State>()) {
  XXH3_INITSTATE(&state_->state);
  XXH3_128bits_reset(&state_->state);
}
Hash::~Hash() = default;

void Hash::add(const void* bytes, std::size_t count) {
  XXH3_128bits_update(&state_->state, bytes, count);
}

std::string Hash::digits() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state_->state));
  std::string text;
  for (const std::uint8_t byte : canonical.digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

}  // namespace qnext
