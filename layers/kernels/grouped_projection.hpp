// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Kokkos_Macros.hpp>

namespace qnext {

/// Where q, k, v and z of a delta net lie in a row of its projection, and in which order the
/// convolution counts its channels. The projection is grouped by key head, G blocks of
/// [q (K) | k (K) | v (R V) | z (R V)] with R value heads for each key head; the channels are flat,
/// [q (G K) | k (G K) | v (G R V)].
struct GroupedProjection {
  int G;  // key heads
  int R;  // value heads of a key head
  int K;
  int V;

  KOKKOS_INLINE_FUNCTION int heads() const { return G * R; }

  /// Columns of a block: all of them, and those that are convolved, which come first.
  KOKKOS_INLINE_FUNCTION int block() const { return 2 * (K + R * V); }
  KOKKOS_INLINE_FUNCTION int convolved() const { return 2 * K + R * V; }

  KOKKOS_INLINE_FUNCTION int columns() const { return G * block(); }
  KOKKOS_INLINE_FUNCTION int channels() const { return G * convolved(); }

  /// The channel of column c < convolved() of block g.
  KOKKOS_INLINE_FUNCTION int channel(int g, int c) const {
    if (c < K) {
      return g * K + c;
    }
    return c < 2 * K ? G * K + g * K + c - K : 2 * G * K + g * R * V + c - 2 * K;
  }

  /// The block of a channel, and its column in there.
  KOKKOS_INLINE_FUNCTION int block_of(int channel) const {
    if (channel < 2 * G * K) {
      return channel % (G * K) / K;
    }
    return (channel - 2 * G * K) / (R * V);
  }
  KOKKOS_INLINE_FUNCTION int column_of(int channel) const {
    if (channel < 2 * G * K) {
      return channel / (G * K) * K + channel % K;
    }
    return 2 * K + (channel - 2 * G * K) % (R * V);
  }

  /// The first column of the gate z of value head h in a row.
  KOKKOS_INLINE_FUNCTION int gate(int h) const { return h / R * block() + convolved() + h % R * V; }
};

}  // namespace qnext
