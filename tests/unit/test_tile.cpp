// SPDX-License-Identifier: Apache-2.0
#include "core/team.hpp"
#include "core/tile.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace qnext {
namespace {

using tile::Form;
using tile::Tile;

template <class Real>
class TileTest : public testing::Test {};
using Reals = testing::Types<double, float>;
TYPED_TEST_SUITE(TileTest, Reals);

// Runs f(team) in one team.
template <class F>
void in_a_team(const F& f) {
  Kokkos::parallel_for("test::tile", row_policy(Exec{}, 1), f);
}

template <class View>
auto tile_in(const View& memory, int columns) {
  return Tile<typename View::value_type>{memory.data(), int(memory.extent(0)), columns,
                                         int(memory.extent(1))};
}

template <class Real, Form form_a, Form form_b>
struct MultiplyAdd {
  Real scale;
  Tile<Real> a, b, c;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    tile::multiply_add<form_a, form_b>(team, scale, a, b, c);
  }
};

struct Shape {
  int M, N, K;
};

// Every number of rows and vectors of a register block and their edges, one term, and more terms
// than one pass has.
std::vector<Shape> shapes() {
  std::vector<Shape> all = {
      {64, 64, 128}, {64, 128, 64}, {33, 17, 300}, {7, 257, 5}, {100, 70, 513}};
  for (int rows = 1; rows <= 25; ++rows) {
    all.push_back({rows, 49 - rows, rows % 7 + 1});
  }
  return all;
}

// Operands below 1: K + 2 roundings of at most eps/2 of sums below K + 1, doubled as Kokkos Kernels
// do. What lies beside the tiles is NaN and is neither read nor written.
template <class Real, Form form_a, Form form_b>
void expect_product(const Shape& n, Real scale) {
  constexpr bool plain_a = form_a == Form::plain, plain_b = form_b == Form::plain;
  const auto framed = [](int rows, int columns, std::uint64_t seed) {
    auto values = test::rounded<Real>(test::uniform(rows * (columns + 5), -1.0, 1.0, seed));
    for (int i = 0; i < rows; ++i) {
      for (int j = columns; j < columns + 5; ++j) {
        values[i * (columns + 5) + j] = std::numeric_limits<double>::quiet_NaN();
      }
    }
    return values;
  };
  const int a_rows = plain_a ? n.M : n.K, a_columns = plain_a ? n.K : n.M;
  const int b_rows = plain_b ? n.K : n.N, b_columns = plain_b ? n.N : n.K;
  const auto a = framed(a_rows, a_columns, 1), b = framed(b_rows, b_columns, 2);
  const auto c = framed(n.M, n.N, 3);
  const auto device_a = test::to_device<Real>(a, a_rows, a_columns + 5);
  const auto device_b = test::to_device<Real>(b, b_rows, b_columns + 5);
  const auto device_c = test::to_device<Real>(c, n.M, n.N + 5);
  in_a_team(MultiplyAdd<Real, form_a, form_b>{
      scale, tile_in(device_a, a_columns), tile_in(device_b, b_columns), tile_in(device_c, n.N)});
  const auto actual = test::to_host(device_c);
  const double error = 2.0 * (n.K + 2) * std::numeric_limits<Real>::epsilon();
  for (int i = 0; i < n.M; ++i) {
    for (int j = 0; j < n.N; ++j) {
      double sum = 0.0;
      for (int k = 0; k < n.K; ++k) {
        sum += (plain_a ? a[i * (n.K + 5) + k] : a[k * (n.M + 5) + i]) *
               (plain_b ? b[k * (n.N + 5) + j] : b[j * (n.K + 5) + k]);
      }
      const int place = i * (n.N + 5) + j;
      ASSERT_NEAR(actual[place], c[place] + scale * sum, error)
          << "M " << n.M << " N " << n.N << " K " << n.K << " row " << i << " column " << j;
    }
    for (int j = n.N; j < n.N + 5; ++j) {
      ASSERT_TRUE(std::isnan(actual[i * (n.N + 5) + j])) << "beside row " << i;
    }
  }
}

TYPED_TEST(TileTest, MultiplyAddEqualsTheDefinition) {
  for (const Shape& n : shapes()) {
    for (const double scale : {1.0, -0.75}) {
      const auto s = TypeParam(scale);
      expect_product<TypeParam, Form::plain, Form::plain>(n, s);
      expect_product<TypeParam, Form::plain, Form::transposed>(n, s);
      expect_product<TypeParam, Form::transposed, Form::plain>(n, s);
      expect_product<TypeParam, Form::transposed, Form::transposed>(n, s);
    }
  }
}

// The same row of a alone and among others gives the same bits.
TYPED_TEST(TileTest, ARowOfAProductDoesNotDependOnTheOthers) {
  using Real = TypeParam;
  const int M = 77, N = 83, K = 300;
  const auto a = test::to_device<Real>(test::uniform(M * K, -1.0, 1.0, 1), M, K);
  const auto b = test::to_device<Real>(test::uniform(N * K, -1.0, 1.0, 2), N, K);
  const auto start = test::uniform(M * N, -1.0, 1.0, 3);
  const auto all = test::to_device<Real>(start, M, N), alone = test::to_device<Real>(start, M, N);
  const Real scale = Real(0.3);
  in_a_team(MultiplyAdd<Real, Form::plain, Form::transposed>{scale, tile_in(a, K), tile_in(b, K),
                                                             tile_in(all, N)});
  for (int i = 0; i < M; ++i) {
    in_a_team(MultiplyAdd<Real, Form::plain, Form::transposed>{
        scale, tile_in(a, K).block(i, 0, 1, K), tile_in(b, K),
        tile_in(alone, N).block(i, 0, 1, N)});
  }
  EXPECT_EQ(test::to_host(all), test::to_host(alone));
}

template <class Real, class T>
struct LoadTransposeStore {
  const T* source;
  T* destination;
  Tile<Real> tile, turned;
  int stride;
  int valid_rows;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    tile::load(team, source, stride, tile, valid_rows);
    tile::transpose(team, tile, turned);
    tile::store(team, turned, destination, turned.columns);
  }
};

// Widened and rounded once: what comes back are the same numbers. Rows behind the valid ones are
// NaN in memory, zero in the tile.
template <class Real, class T>
void expect_round_trip(int rows, int columns, int valid_rows) {
  const int stride = columns + 3;
  auto values = test::rounded<T>(test::uniform(rows * stride, -1.0, 1.0, 1));
  for (int i = valid_rows * stride; i < rows * stride; ++i) {
    values[i] = std::numeric_limits<double>::quiet_NaN();
  }
  const auto source = test::to_device<T>(values, rows, stride);
  const auto memory = test::nan_tensor<Real>(rows, columns);
  const auto turned = test::nan_tensor<Real>(columns, rows);
  const auto destination = test::nan_tensor<T>(columns, rows);
  in_a_team(LoadTransposeStore<Real, T>{source.data(), destination.data(), tile_in(memory, columns),
                                        tile_in(turned, rows), stride, valid_rows});
  const auto actual = test::to_host(destination);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      const double expected = i < valid_rows ? values[i * stride + j] : 0.0;
      ASSERT_EQ(actual[j * rows + i], expected) << "row " << i << " column " << j;
    }
  }
}

TYPED_TEST(TileTest, LoadTransposeAndStoreKeepTheNumbers) {
  for (const int valid_rows : {0, 7, 33}) {
    expect_round_trip<TypeParam, TypeParam>(33, 41, valid_rows);
    expect_round_trip<TypeParam, bf16>(33, 41, valid_rows);
  }
  expect_round_trip<TypeParam, TypeParam>(1, 1, 1);
}

template <class Real>
struct Fill {
  Tile<Real> tile;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const { tile::fill(team, tile, Real(3)); }
};

TYPED_TEST(TileTest, FillWritesTheTileAndNothingElse) {
  const auto memory = test::nan_tensor<TypeParam>(9, 20);
  in_a_team(Fill<TypeParam>{tile_in(memory, 20).block(2, 3, 5, 11)});
  const auto actual = test::to_host(memory);
  for (int i = 0; i < 9; ++i) {
    for (int j = 0; j < 20; ++j) {
      const bool inside = i >= 2 && i < 7 && j >= 3 && j < 14;
      ASSERT_TRUE(inside ? actual[i * 20 + j] == 3.0 : std::isnan(actual[i * 20 + j]));
    }
  }
}

}  // namespace
}  // namespace qnext
