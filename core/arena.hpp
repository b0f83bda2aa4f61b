// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/require.hpp"
#include "core/types.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace qnext {

/// The one allocation that holds all activations.
///
/// Reserving is arithmetic on an offset. An arena made without a size measures: it hands out
/// tensors of the right extents that point nowhere and remembers the highest offset, so that the
/// same calls, made first on a measuring arena and then on one of that size, plan and build the
/// memory of a run. What is reserved inside a Scope ends with it, and the next reservation takes
/// its place.
class Arena {
 public:
  /// One tensor that was alive when the arena was at its fullest.
  struct Entry {
    std::string name;
    std::int64_t offset;
    std::int64_t bytes;
  };

  /// Ends the reservations made since it began. Scopes nest.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), top_(arena.top_), live_(arena.live_.size()) {}
    ~Scope() {
      arena_.top_ = top_;
      arena_.live_.resize(live_);
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    std::int64_t top_;
    std::size_t live_;
  };

  /// Alternatives that are never alive together and start at the same offset; when it ends, the
  /// arena goes on behind the largest of them.
  class Overlay {
   public:
    explicit Overlay(Arena& arena)
        : arena_(arena), start_(arena.top_), highest_(arena.top_), live_(arena.live_) {}
    ~Overlay() {
      arena_.top_ = highest_;
      arena_.live_ = std::move(largest_.empty() ? live_ : largest_);
    }
    Overlay(const Overlay&) = delete;
    Overlay& operator=(const Overlay&) = delete;

    template <class Reserve>
    void add(const Reserve& reserve) {
      arena_.top_ = start_;
      arena_.live_ = live_;
      reserve();
      if (arena_.top_ > highest_) {
        highest_ = arena_.top_;
        largest_ = arena_.live_;
      }
    }

   private:
    Arena& arena_;
    std::int64_t start_;
    std::int64_t highest_;
    std::vector<Entry> live_;
    std::vector<Entry> largest_;
  };

  /// Prefixes the names of what is reserved while it lives: "layers.3.mixer".
  class Room {
   public:
    Room(Arena& arena, const std::string& name) : arena_(arena), length_(arena.room_.size()) {
      arena_.room_ += name + ".";
    }
    ~Room() { arena_.room_.resize(length_); }
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

   private:
    Arena& arena_;
    std::size_t length_;
  };

  Arena() = default;
  explicit Arena(std::int64_t bytes);

  bool measuring() const { return memory_.data() == nullptr; }

  /// A tensor of uninitialised memory, aligned for every vector unit and copy engine.
  template <class T, int Rank, class... Extents>
  Tensor<T, Rank> reserve(const char* name, Extents... extents) {
    static_assert(sizeof...(extents) == Rank);
    const std::int64_t elements = (std::int64_t{1} * ... * static_cast<std::int64_t>(extents));
    void* const address = take(name, elements * static_cast<std::int64_t>(sizeof(T)));
    return Tensor<T, Rank>(static_cast<T*>(address), static_cast<std::size_t>(extents)...);
  }

  /// An arena of `bytes` of this one.
  Arena part(std::int64_t bytes);

  /// The most bytes that were reserved at once.
  std::int64_t peak() const { return peak_; }
  std::int64_t reserved() const { return top_; }

  /// What was reserved at that moment, in order of offset.
  const std::vector<Entry>& at_peak() const { return at_peak_; }

 private:
  static constexpr std::int64_t alignment = 256;

  void* take(const char* name, std::int64_t bytes);

  Tensor<std::byte, 1> memory_;
  std::int64_t top_ = 0;
  std::int64_t peak_ = 0;
  std::string room_;
  std::vector<Entry> live_;
  std::vector<Entry> at_peak_;
};

}  // namespace qnext
