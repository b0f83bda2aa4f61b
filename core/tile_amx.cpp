// SPDX-License-Identifier: Apache-2.0
#include "core/tile_amx.hpp"

#include "core/tile_packing.hpp"

#include <algorithm>

#if defined(__AMX_BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define QNEXT_HAS_AMX
#endif

namespace qnext::tile::amx {

#if defined(QNEXT_HAS_AMX)

namespace {

// arch_prctl(2): the state of tiles, 8 kB a thread, is granted to a process that asks for it.
inline constexpr int request_permission = 0x1023;
inline constexpr int tile_data = 18;

// All eight tiles with 16 rows of 64 bytes: 0 to 3 are sums, 4 and 5 of a, 6 and 7 of b.
struct alignas(64) Configuration {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(Configuration) == 64);

// c (16 tall, 16 wide) = or += a b in `tall` x `wide` tiles, both 1 or 2. Four tiles of sums read
// each tile of an operand twice.
template <int tall, int wide>
void tile_block(int K, const bf16* a, std::int64_t stride_a, const bf16* b, std::int64_t panel,
                float* c, std::int64_t stride, bool add) {
  const std::int64_t c_bytes = stride * 4, a_bytes = stride_a * 2;
  float* const below = c + square_lanes * stride;
  asm volatile("" ::: "memory");  // the loads of tiles do not say that they read memory
  if (add) {
    _tile_loadd(0, c, c_bytes);
    if constexpr (wide == 2) {
      _tile_loadd(1, c + square_lanes, c_bytes);
    }
    if constexpr (tall == 2) {
      _tile_loadd(2, below, c_bytes);
    }
    if constexpr (tall == 2 && wide == 2) {
      _tile_loadd(3, below + square_lanes, c_bytes);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int k = 0; k < K; k += square_terms) {
    const bf16* const right = b + std::int64_t(k) * square_lanes;
    _tile_loadd(6, right, 64);
    _tile_loadd(4, a + k, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (wide == 2) {
      _tile_loadd(7, right + panel, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (tall == 2) {
      _tile_loadd(5, a + square_lanes * stride_a + k, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (tall == 2 && wide == 2) {
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, c_bytes);
  if constexpr (wide == 2) {
    _tile_stored(1, c + square_lanes, c_bytes);
  }
  if constexpr (tall == 2) {
    _tile_stored(2, below, c_bytes);
  }
  if constexpr (tall == 2 && wide == 2) {
    _tile_stored(3, below + square_lanes, c_bytes);
  }
}

void block(int tall, int wide, int K, const bf16* a, std::int64_t stride_a, const bf16* b,
           std::int64_t panel, float* c, std::int64_t stride, bool add) {
  const auto run = tall == 2 ? (wide == 2 ? tile_block<2, 2> : tile_block<2, 1>)
                             : (wide == 2 ? tile_block<1, 2> : tile_block<1, 1>);
  run(K, a, stride_a, b, panel, c, stride, add);
}

}  // namespace

bool available() {
  static const bool granted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return granted;
}

void multiply(int M, int N, int K, const bf16* a, std::int64_t stride_a, const bf16* b, int depth,
              float* c, std::int64_t stride, bool add) {
  constexpr int pair = 2 * square_lanes;
  static constexpr Configuration configuration;
  _tile_loadconfig(&configuration);
  const std::int64_t panel = std::int64_t(depth) * square_lanes;
  for (int j = 0; j < N; j += pair) {
    const int columns = std::min(pair, N - j), wide = columns > square_lanes ? 2 : 1;
    const bf16* const right = b + j / square_lanes * panel;
    for (int i = 0; i < M; i += pair) {
      const int rows = std::min(pair, M - i), tall = rows > square_lanes ? 2 : 1;
      const bf16* const left = a + i * stride_a;
      float* const to = c + i * stride + j;
      if (rows == tall * square_lanes && columns == wide * square_lanes) {
        block(tall, wide, K, left, stride_a, right, panel, to, stride, add);
        continue;
      }
      alignas(64) float edge[pair * pair] = {};
      for (int row = 0; add && row < rows; ++row) {
        std::copy_n(to + row * stride, columns, edge + row * pair);
      }
      block(tall, wide, K, left, stride_a, right, panel, edge, pair, add);
      for (int row = 0; row < rows; ++row) {
        std::copy_n(edge + row * pair, columns, to + row * stride);
      }
    }
  }
  _tile_release();
}

#else

bool available() {
  return false;
}

// Never called: no unit that is not available is.
void multiply(int, int, int, const bf16*, std::int64_t, const bf16*, int, float*, std::int64_t,
              bool) {}

#endif

}  // namespace qnext::tile::amx
