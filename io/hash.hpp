// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace qnext {

/// XXH3 with 128 bits, over bytes that come in pieces. It finds damage, not malice.
class Hash {
 public:
  Hash();
  ~Hash();
  Hash(const Hash&) = delete;
  Hash& operator=(const Hash&) = delete;

  void add(const void* bytes, std::size_t count);

  /// Of everything added: 32 hexadecimal digits, as xxhsum -H2 prints them.
  std::string digits() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qnext
