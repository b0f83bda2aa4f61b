// SPDX-License-Identifier: Apache-2.0
#include "core/tile_operand.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace qnext {
namespace {

using tile::Tile;
using tile::Turn;

template <class Storage>
class TileOperand : public testing::Test {};
using Storages = testing::Types<double, float, bf16>;
TYPED_TEST_SUITE(TileOperand, Storages);

struct Shape {
  int M, N, K;
};
const std::vector<Shape> shapes = {{1, 1, 1},    {16, 16, 32}, {64, 128, 64}, {17, 33, 31},
                                   {48, 20, 12}, {5, 100, 48}, {128, 7, 300}};

template <class View>
auto tile_in(const View& memory) {
  return Tile<typename View::value_type>{memory.data(), int(memory.extent(0)),
                                         int(memory.extent(1)), int(memory.extent(1))};
}

// c = op(a) op(b) on operands of memory that was NaN.
template <class Storage, class T>
struct Product {
  Turn turn_a, turn_b;
  Tile<T> a, b;
  Tile<Accum<Storage>> c;
  Tensor<Accum<Storage>, 1> memory;
  bool add;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const bool plain = turn_b == Turn::plain;
    const int K = plain ? b.rows : b.columns;
    TileSpace<Accum<Storage>> space{memory.data(), 0};
    const auto memory_a = tile::take_left<Storage>(space, c.rows, K);
    const auto memory_b = plain ? tile::take_right<Storage>(space, K, c.columns)
                                : tile::take_turned_right<Storage>(space, K, c.columns);
    const auto left = tile::left<Storage>(team, turn_a, a, memory_a);
    const auto right = tile::right<Storage>(team, turn_b, b, memory_b);
    tile::multiply<Storage>(team, left, right, c, add);
  }
};

// K + 1 terms, each with one rounding of its product and one of the sum at most: (K + 1) eps times
// the sum of all magnitudes. Operands are rounded to Storage before, exactly as bf16 rounds.
template <class Storage, class T>
void expect_product(const Shape& n, Turn turn_a, Turn turn_b, bool add) {
  using Real = Accum<Storage>;
  const bool plain_a = turn_a == Turn::plain, plain_b = turn_b == Turn::plain;
  const auto a_values = test::rounded<T>(test::uniform(n.M * n.K, -1, 1, 1));
  const auto b_values = test::rounded<T>(test::uniform(n.K * n.N, -1, 1, 2));
  const auto c_values = test::rounded<Real>(test::uniform(n.M * n.N, -1, 1, 3));
  const auto a = test::to_device<T>(a_values, plain_a ? n.M : n.K, plain_a ? n.K : n.M);
  const auto b = test::to_device<T>(b_values, plain_b ? n.K : n.N, plain_b ? n.N : n.K);
  const auto c = add ? test::to_device<Real>(c_values, n.M, n.N) : test::nan_tensor<Real>(n.M, n.N);
  const auto memory = test::nan_tensor<Real>(4 * (n.M + n.N + 32) * (n.K + 32));
  Kokkos::parallel_for(
      "test::tile_operand", row_policy(Exec{}, 1),
      Product<Storage, T>{turn_a, turn_b, tile_in(a), tile_in(b), tile_in(c), memory, add});
  const auto actual = test::to_host(c);
  const auto left = test::rounded<Storage>(a_values), right = test::rounded<Storage>(b_values);
  for (int i = 0; i < n.M; ++i) {
    for (int j = 0; j < n.N; ++j) {
      double sum = add ? c_values[i * n.N + j] : 0.0, magnitude = std::abs(sum);
      for (int k = 0; k < n.K; ++k) {
        const double term =
            left[plain_a ? i * n.K + k : k * n.M + i] * right[plain_b ? k * n.N + j : j * n.K + k];
        sum += term;
        magnitude += std::abs(term);
      }
      const double bound = (n.K + 1) * test::epsilon_of<Real>() * magnitude;
      ASSERT_NEAR(actual[i * n.N + j], sum, bound) << n.M << " " << n.N << " " << n.K;
    }
  }
}

TYPED_TEST(TileOperand, ProductsOfEveryTurnAreThoseOfTheRoundedOperands) {
  for (const Shape& n : shapes) {
    for (const Turn a : {Turn::plain, Turn::turned}) {
      for (const Turn b : {Turn::plain, Turn::turned}) {
        for (const bool add : {false, true}) {
          expect_product<TypeParam, Accum<TypeParam>>(n, a, b, add);
          expect_product<TypeParam, TypeParam>(n, a, b, add);
        }
      }
    }
  }
}

// Blocks of prepared operands: the product of a corner, which ends with the operands.
template <class Storage>
struct CornerProduct {
  Tile<Accum<Storage>> a, b, c;
  Tensor<Accum<Storage>, 1> memory;
  int row, term, column;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    TileSpace<Accum<Storage>> space{memory.data(), 0};
    const auto memory_a = tile::take_left<Storage>(space, a.rows, a.columns);
    const auto memory_b = tile::take_right<Storage>(space, b.rows, b.columns);
    const auto left = tile::left<Storage>(team, Turn::plain, a, memory_a);
    const auto right = tile::right<Storage>(team, Turn::plain, b, memory_b);
    const int terms = a.columns - term;
    tile::multiply<Storage>(team, left.block(row, term, c.rows, terms),
                            right.block(term, column, terms, c.columns), c);
  }
};

TYPED_TEST(TileOperand, BlocksAreProductsOfTheirPart) {
  using Real = Accum<TypeParam>;
  constexpr int M = 40, N = 52, K = 80, row = 16, term = 32, column = 16;
  const auto a_values = test::rounded<TypeParam>(test::uniform(M * K, -1, 1, 4));
  const auto b_values = test::rounded<TypeParam>(test::uniform(K * N, -1, 1, 5));
  const auto a = test::to_device<Real>(a_values, M, K), b = test::to_device<Real>(b_values, K, N);
  const auto c = test::nan_tensor<Real>(M - row, N - column);
  const auto memory = test::nan_tensor<Real>(4 * (M + N) * (K + 32));
  Kokkos::parallel_for(
      "test::tile_corner", row_policy(Exec{}, 1),
      CornerProduct<TypeParam>{tile_in(a), tile_in(b), tile_in(c), memory, row, term, column});
  const auto actual = test::to_host(c);
  for (int i = row; i < M; ++i) {
    for (int j = column; j < N; ++j) {
      double sum = 0.0, magnitude = 0.0;
      for (int k = term; k < K; ++k) {
        sum += a_values[i * K + k] * b_values[k * N + j];
        magnitude += std::abs(a_values[i * K + k] * b_values[k * N + j]);
      }
      ASSERT_NEAR(actual[(i - row) * (N - column) + j - column], sum,
                  (K + 1) * test::epsilon_of<Real>() * magnitude);
    }
  }
}

}  // namespace
}  // namespace qnext
