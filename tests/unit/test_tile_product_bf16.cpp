// SPDX-License-Identifier: Apache-2.0
#include "core/tile_packing.hpp"
#include "core/tile_product_bf16.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace qnext {
namespace {

using tile::Turn;
using tile::Unit;

class TileProductBf16 : public testing::TestWithParam<Unit> {
 protected:
  void SetUp() override {
    if (!tile::available(GetParam())) {
      GTEST_SKIP() << "this processor or build has no such unit";
    }
  }
};

// Operands of one product; the memory behind the last row of the left one is NaN.
struct Operands {
  int M, N, K;
  std::vector<double> a_values, b_values;
  std::vector<bf16> a, b;

  Operands(int rows, int columns, int terms)
      : M(rows),
        N(columns),
        K(terms),
        a_values(test::rounded<bf16>(test::uniform(M * K, -1, 1, 1))),
        b_values(test::rounded<bf16>(test::uniform(K * N, -1, 1, 2))),
        a(tile::padded_lanes(M) * depth(), bf16(std::numeric_limits<float>::quiet_NaN())),
        b(tile::padded_lanes(N) * depth(), bf16(std::numeric_limits<float>::quiet_NaN())) {
    const std::vector<float> left(a_values.begin(), a_values.end()),
        right(b_values.begin(), b_values.end());
    tile::pack_left_on_cpu(Turn::plain, M, K, left.data(), K, a.data(), depth());
    tile::pack_right_on_cpu(Turn::plain, K, N, right.data(), N, b.data());
  }
  int depth() const { return tile::padded_terms(K); }

  // Rows [0, rows) of columns [column, N).
  std::vector<float> product(Unit unit, int rows, int column) const {
    std::vector<float> c(rows * (N - column), std::numeric_limits<float>::quiet_NaN());
    tile::multiply_bf16_on_cpu(unit, rows, N - column, K, a.data(), depth(),
                               b.data() + tile::right_place(0, column, depth()), depth(), c.data(),
                               N - column, false);
    return c;
  }
};

TEST_P(TileProductBf16, EqualsTheDefinition) {
  std::vector<std::array<int, 3>> shapes = {{64, 128, 128}, {1, 1, 1}, {33, 65, 257}, {100, 15, 2}};
  for (int rows = 1; rows <= 34; ++rows) {
    shapes.push_back({rows, 50 - rows, rows % 9 * 7 + 1});
  }
  for (const auto& [M, N, K] : shapes) {
    const Operands n(M, N, K);
    const auto c = n.product(GetParam(), M, 0);
    for (int i = 0; i < M; ++i) {
      for (int j = 0; j < N; ++j) {
        double sum = 0.0, magnitude = 0.0;
        for (int k = 0; k < K; ++k) {
          const double term = n.a_values[i * K + k] * n.b_values[k * N + j];
          sum += term;
          magnitude += std::abs(term);
        }
        // Products of bf16 are exact in float; K sums with one rounding each.
        ASSERT_NEAR(c[i * N + j], sum, K * 0x1.0p-23 * magnitude) << M << " " << N << " " << K;
      }
    }
  }
}

TEST_P(TileProductBf16, AnElementDoesNotDependOnTheExtents) {
  const Operands n(48, 80, 200);
  const auto whole = n.product(GetParam(), 48, 0);
  for (const int rows : {1, 7, 13, 16, 31, 48}) {
    for (const int column : {0, 16, 48, 64}) {
      const auto part = n.product(GetParam(), rows, column);
      for (int i = 0; i < rows; ++i) {
        for (int j = column; j < n.N; ++j) {
          ASSERT_EQ(part[i * (n.N - column) + j - column], whole[i * n.N + j]);
        }
      }
    }
  }
}

std::string name_of_unit(const testing::TestParamInfo<Unit>& info) {
  return info.param == Unit::amx ? "amx" : info.param == Unit::dot ? "dot" : "widened";
}
INSTANTIATE_TEST_SUITE_P(Units, TileProductBf16,
                         testing::Values(Unit::amx, Unit::dot, Unit::widened), name_of_unit);

// What packing rounds is what bf16 rounds, also at ties, at the largest numbers and for infinities.
TEST(TilePacking, RoundsToNearestEven) {
  const std::vector<float> values = {1.0f,     1.00390625f, 1.01171875f, -1.00390625f,
                                     3.3e38f,  3.4e38f,     -3.4e38f,    0.1f,
                                     1.2e-38f, -0.0f,       INFINITY,    1e-20f};
  const int n = int(values.size());
  std::vector<bf16> left(16 * 32), right(16 * 32);
  tile::pack_left_on_cpu(Turn::plain, 1, n, values.data(), n, left.data(), 32);
  tile::pack_right_on_cpu(Turn::plain, 1, n, values.data(), n, right.data());
  for (int i = 0; i < n; ++i) {
    EXPECT_EQ(left[i].bits, bf16(values[i]).bits) << values[i];
    EXPECT_EQ(right[tile::right_place(0, i, 32)].bits, bf16(values[i]).bits) << values[i];
  }
}

}  // namespace
}  // namespace qnext
