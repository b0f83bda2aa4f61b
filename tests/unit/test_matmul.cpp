// SPDX-License-Identifier: Apache-2.0
#include "core/matmul.hpp"
#include "core/matmul_fallback.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace qnext {
namespace {

template <class InType, class OutType>
struct Types {
  using In = InType;
  using Out = OutType;
};
using AllTypes = testing::Types<Types<double, double>, Types<float, float>, Types<bf16, bf16>,
                                Types<bf16, float>>;

template <class T>
class Matmul : public testing::Test {};
TYPED_TEST_SUITE(Matmul, AllTypes);
template <class T>
class MatmulGrouped : public testing::Test {};
TYPED_TEST_SUITE(MatmulGrouped, AllTypes);

// Operands are below 1, so that K terms add up to less than K. Each of the K additions and each
// product rounds once, by eps/2 of at most K in any order of summation: K^2 eps would be the worst
// case, K eps * 2 what Kokkos Kernels ask for when eps K << 1 and terms have random signs. The
// result is stored once, with an error of half a spacing of its size, and added to C below 1.
template <class In, class Out>
double bound(int terms) {
  const double sums = 2.0 * terms * std::numeric_limits<Accum<In>>::epsilon();
  const bool rounds = std::is_same_v<Out, bf16>;
  return sums + (rounds ? 0.5 * test::epsilon_of<bf16>() * (terms + 1) : 0.0);
}

struct Matrix {
  int rows, columns;
  std::vector<double> values;
  bool turned = false;

  double at(int i, int j) const { return values[turned ? j * columns + i : i * columns + j]; }
};

template <class In>
Matrix operand(int rows, int columns, Op op, std::uint64_t seed) {
  const bool turned = op == Op::transpose;
  return {turned ? columns : rows, turned ? rows : columns,
          test::rounded<In>(test::uniform(std::int64_t(rows) * columns, -1.0, 1.0, seed)), turned};
}

template <class In>
Tensor<const In, 2> on_device(const Matrix& m) {
  return test::to_device<In>(m.values, m.rows, m.columns);
}

double element(const Matrix& a, const Matrix& b, int i, int j, int terms) {
  double sum = 0.0;
  for (int k = 0; k < terms; ++k) {
    sum += a.at(i, k) * b.at(k, j);
  }
  return sum;
}

struct Shape {
  int M, N, K;
};

// One row, few rows, odd lengths, tiles and no multiples of tiles, one column, one term, longer
// than a block of terms.
const std::vector<Shape> shapes = {{1, 1, 1},    {1, 300, 77},  {1, 256, 512},  {3, 129, 64},
                                   {8, 64, 192}, {13, 1, 300},  {5, 7, 1},      {33, 65, 31},
                                   {97, 131, 9}, {64, 128, 96}, {100, 40, 523}, {130, 34, 258}};

template <class In, class Out, class Product>
void expect_product(const Shape& n, Op op_a, Op op_b, Write write, const Product& product) {
  const Matrix a = operand<In>(n.M, n.K, op_a, 1), b = operand<In>(n.K, n.N, op_b, 2);
  const auto before = test::rounded<Out>(test::uniform(std::int64_t(n.M) * n.N, -1.0, 1.0, 3));
  const Tensor<Out, 2> c = write == Write::add ? test::to_device<Out>(before, n.M, n.N)
                                               : test::nan_tensor<Out>(n.M, n.N);
  product(op_a, on_device<In>(a), op_b, on_device<In>(b), c, write);
  const auto actual = test::to_host(c);
  const double error = bound<In, Out>(n.K);
  for (int i = 0; i < n.M; ++i) {
    for (int j = 0; j < n.N; ++j) {
      const double added = write == Write::add ? before[i * n.N + j] : 0.0;
      ASSERT_NEAR(actual[i * n.N + j], element(a, b, i, j, n.K) + added, error)
          << "M " << n.M << " N " << n.N << " K " << n.K << " op " << int(op_a) << int(op_b)
          << " add " << int(write) << " row " << i << " column " << j;
    }
  }
}

template <class In, class Out, class Product>
void expect_all_products(const Product& product) {
  for (const Shape& n : shapes) {
    for (const Op op_a : {Op::none, Op::transpose}) {
      for (const Op op_b : {Op::none, Op::transpose}) {
        for (const Write write : {Write::replace, Write::add}) {
          expect_product<In, Out>(n, op_a, op_b, write, product);
        }
      }
    }
  }
}

TYPED_TEST(Matmul, EqualsTheDefinition) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::Out;
  expect_all_products<In, Out>(
      [](Op op_a, const auto& a, Op op_b, const auto& b, const auto& c, Write write) {
        matmul<In, Out>({}, op_a, a, op_b, b, c, write);
      });
}

TYPED_TEST(Matmul, FallbackEqualsTheDefinition) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::Out;
  expect_all_products<In, Out>(
      [](Op op_a, const auto& a, Op op_b, const auto& b, const auto& c, Write write) {
        matmul_fallback<In, Out>({}, op_a, a, op_b, b, c, write);
      });
}

TYPED_TEST(Matmul, WithoutTermsIsZero) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::Out;
  const Tensor<Out, 2> c = test::nan_tensor<Out>(3, 5);
  const Tensor<const In, 2> a = test::nan_tensor<In>(3, 0), b = test::nan_tensor<In>(0, 5);
  matmul<In, Out>({}, Op::none, a, Op::none, b, c);
  EXPECT_EQ(test::to_host(c), std::vector<double>(15, 0.0));
}

TYPED_TEST(Matmul, EqualCallsGiveEqualBits) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::Out;
  for (const Shape& n : {Shape{1, 515, 257}, Shape{61, 70, 300}, Shape{256, 200, 128}}) {
    const auto a = on_device<In>(operand<In>(n.M, n.K, Op::none, 1));
    const auto b = on_device<In>(operand<In>(n.N, n.K, Op::none, 2));
    const auto once = test::nan_tensor<Out>(n.M, n.N), again = test::nan_tensor<Out>(n.M, n.N);
    matmul<In, Out>({}, Op::none, a, Op::transpose, b, once);
    matmul<In, Out>({}, Op::none, a, Op::transpose, b, again);
    EXPECT_EQ(test::to_host(once), test::to_host(again));
  }
}

// Tokens that are decoded together.
TYPED_TEST(Matmul, OfFewRowsARowDoesNotDependOnTheirNumber) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::Out;
  const int N = 75, K = 523;
  const auto a = on_device<In>(operand<In>(few_rows, K, Op::none, 1));
  const auto b = on_device<In>(operand<In>(N, K, Op::none, 2));
  const auto together = test::nan_tensor<Out>(few_rows, N);
  matmul<In, Out>({}, Op::none, a, Op::transpose, b, together);
  const auto expected = test::to_host(together);
  for (const int rows : {0, 1, 2, 7, 8, 9, 17, 33, few_rows - 1}) {
    const auto some = test::nan_tensor<Out>(rows, N);
    const int first = few_rows - rows;
    matmul<In, Out>({}, Op::none, Tensor<const In, 2>(a.data() + std::int64_t(first) * K, rows, K),
                    Op::transpose, b, some);
    EXPECT_EQ(test::to_host(some),
              std::vector<double>(expected.begin() + std::int64_t(first) * N, expected.end()))
        << rows << " rows";
  }
}

TYPED_TEST(Matmul, RefusesExtentsThatDoNotFit) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::Out;
  const Tensor<const In, 2> a = test::nan_tensor<In>(2, 3), b = test::nan_tensor<In>(4, 5);
  const Tensor<Out, 2> c = test::nan_tensor<Out>(2, 5);
  try {
    matmul<In, Out>({}, Op::none, a, Op::transpose, b, c);
    FAIL();
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("A (2 x 3) B (4 x 5)^T into C (2 x 5)"),
              std::string::npos)
        << error.what();
  }
}

struct Groups {
  std::vector<int> rows;  // of each group
  int N, K;
  int spare = 0;  // rows of A and C behind the last group
};

const std::vector<Groups> groups = {{{1}, 33, 40},
                                    {{0, 5, 0, 0, 17, 1, 0}, 70, 33},
                                    {{130, 1, 64, 0, 97}, 65, 300, 11},
                                    {{8, 8, 8, 8}, 128, 64, 3},
                                    {{0, 0}, 16, 16, 4}};

std::vector<int> offsets(const Groups& n) {
  std::vector<int> offset{0};
  for (const int rows : n.rows) {
    offset.push_back(offset.back() + rows);
  }
  return offset;
}

Tensor<const int, 1> offsets_on_device(const Groups& n) {
  const auto offset = offsets(n);
  const Tensor<int, 1> device("offset", offset.size());
  const auto host = Kokkos::create_mirror_view(device);
  std::copy(offset.begin(), offset.end(), host.data());
  Kokkos::deep_copy(device, host);
  return device;
}

template <class In, class Out, class Product>
void expect_grouped(const Groups& n, Op op_b, Write write, const Product& product) {
  const auto offset = offsets(n);
  const int E = int(n.rows.size()), R = offset.back() + n.spare;
  const Matrix a = operand<In>(R, n.K, Op::none, 1);
  const Matrix all = operand<In>(E * n.K * n.N, 1, Op::none, 2);
  const bool turned = op_b == Op::transpose;
  const int rows = turned ? n.N : n.K, columns = turned ? n.K : n.N;
  const auto before = test::rounded<Out>(test::uniform(std::int64_t(R) * n.N, -1.0, 1.0, 3));
  const Tensor<Out, 2> c =
      write == Write::add ? test::to_device<Out>(before, R, n.N) : test::nan_tensor<Out>(R, n.N);
  product(offsets_on_device(n), on_device<In>(a), op_b,
          test::to_device<In>(all.values, E, rows, columns), c, write);
  const auto actual = test::to_host(c);
  const double error = bound<In, Out>(n.K);
  for (int e = 0; e < E; ++e) {
    const std::int64_t first = std::int64_t(e) * n.K * n.N, size = std::int64_t(n.K) * n.N;
    const Matrix b{
        rows, columns, {all.values.begin() + first, all.values.begin() + first + size}, turned};
    for (int i = offset[e]; i < offset[e + 1]; ++i) {
      for (int j = 0; j < n.N; ++j) {
        const double added = write == Write::add ? before[i * n.N + j] : 0.0;
        ASSERT_NEAR(actual[i * n.N + j], element(a, b, i, j, n.K) + added, error)
            << "group " << e << " row " << i << " column " << j;
      }
    }
  }
  for (std::int64_t i = std::int64_t(offset.back()) * n.N; i < std::int64_t(R) * n.N; ++i) {
    ASSERT_TRUE(write == Write::add ? actual[i] == before[i] : actual[i] != actual[i])
        << "element " << i << " behind the last group was written";
  }
}

TYPED_TEST(MatmulGrouped, EqualsTheDefinition) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::Out;
  for (const Groups& n : groups) {
    for (const Op op_b : {Op::none, Op::transpose}) {
      for (const Write write : {Write::replace, Write::add}) {
        expect_grouped<In, Out>(n, op_b, write,
                                [](const auto&... x) { matmul_grouped<In, Out>({}, x...); });
        expect_grouped<In, Out>(
            n, op_b, write, [](const auto&... x) { matmul_grouped_fallback<In, Out>({}, x...); });
      }
    }
  }
}

template <class In, class Out, class Product>
void expect_gradient(const Groups& n, const Product& product) {
  const auto offset = offsets(n);
  const int E = int(n.rows.size()), R = offset.back() + n.spare, M = n.K;
  const Matrix a = operand<In>(R, M, Op::none, 1), c = operand<In>(R, n.N, Op::none, 2);
  const auto before = test::rounded<Out>(test::uniform(std::int64_t(E) * M * n.N, -1.0, 1.0, 3));
  const auto b = test::to_device<Out>(before, E, M, n.N);
  product(offsets_on_device(n), on_device<In>(a), on_device<In>(c), b);
  const auto actual = test::to_host(b);
  for (int e = 0; e < E; ++e) {
    for (int i = 0; i < M; ++i) {
      for (int j = 0; j < n.N; ++j) {
        const std::int64_t place = (std::int64_t(e) * M + i) * n.N + j;
        double sum = before[place];
        for (int r = offset[e]; r < offset[e + 1]; ++r) {
          sum += a.at(r, i) * c.at(r, j);
        }
        const double error = n.rows[e] == 0 ? 0.0 : bound<In, Out>(n.rows[e] + 1);
        ASSERT_NEAR(actual[place], sum, error) << "group " << e << " row " << i << " column " << j;
      }
    }
  }
}

TYPED_TEST(MatmulGrouped, GradientEqualsTheDefinition) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::Out;
  for (const Groups& n : groups) {
    expect_gradient<In, Out>(n,
                             [](const auto&... x) { matmul_grouped_gradient<In, Out>({}, x...); });
    expect_gradient<In, Out>(
        n, [](const auto&... x) { matmul_grouped_gradient_fallback<In, Out>({}, x...); });
  }
}

// The same rows with the same matrix, once in a group of their own and once among others.
TYPED_TEST(MatmulGrouped, ARowDoesNotDependOnTheRowsOfItsGroup) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::Out;
  const int R = 203, N = 150, K = 515;
  const auto a = on_device<In>(operand<In>(R, K, Op::none, 1));
  for (const Op op_b : {Op::none, Op::transpose}) {
    const bool turned = op_b == Op::transpose;
    const auto b =
        test::to_device<In>(test::uniform(K * N, -1.0, 1.0, 2), 1, turned ? N : K, turned ? K : N);
    const auto together = test::nan_tensor<Out>(R, N);
    matmul_grouped<In, Out>({}, offsets_on_device({{R}, N, K}), a, op_b, b, together);
    const auto expected = test::to_host(together);
    for (const int rows : {1, 2, 3, 5, 7, 8, 9, 13, 16, 31, 32, 33, 64, 100, 129}) {
      const auto alone = test::nan_tensor<Out>(rows, N);
      const int first = R - rows - (rows % 2);
      const Tensor<const In, 2> some(a.data() + std::int64_t(first) * K, rows, K);
      matmul_grouped<In, Out>({}, offsets_on_device({{rows}, N, K}), some, op_b, b, alone);
      const auto actual = test::to_host(alone);
      for (int i = 0; i < rows * N; ++i) {
        ASSERT_EQ(actual[i], expected[first * N + i]) << rows << " rows, element " << i;
      }
    }
  }
}

// Groups without rows, with one, with an odd number and with more than a block beside each other
// and cut into two calls at a row of each: a rank that takes some of the rows gives the same bits.
TYPED_TEST(MatmulGrouped, RowsOfAllGroupsDoNotDependOnTheCall) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::Out;
  const std::vector<int> all{0, 1, 77, 0, 523, 2, 260};
  const std::vector<std::vector<int>> parts{
      {0, 1, 0, 0, 1, 0, 260}, {0, 0, 31, 0, 257, 1, 129}, {0, 1, 76, 0, 300, 2, 0}};
  const int N = 150, K = 515, E = static_cast<int>(all.size());
  const auto border = offsets({all, N, K});
  const int R = border.back();
  const auto a = operand<In>(R, K, Op::none, 1);
  for (const Op op_b : {Op::none, Op::transpose}) {
    const bool turned = op_b == Op::transpose;
    const auto b = test::to_device<In>(test::uniform(E * K * N, -1.0, 1.0, 2), E, turned ? N : K,
                                       turned ? K : N);
    const auto together = test::nan_tensor<Out>(R, N);
    matmul_grouped<In, Out>({}, offsets_on_device({all, N, K}), on_device<In>(a), op_b, b,
                            together);
    const auto expected = test::to_host(together);
    for (const auto& some : parts) {
      Matrix rows{0, K, {}, false};
      std::vector<double> wanted;
      for (int e = 0; e < E; ++e) {  // the last rows of each group
        const int first = border[e + 1] - some[e];
        rows.rows += some[e];
        rows.values.insert(rows.values.end(), a.values.begin() + std::int64_t(first) * K,
                           a.values.begin() + std::int64_t(border[e + 1]) * K);
        wanted.insert(wanted.end(), expected.begin() + std::int64_t(first) * N,
                      expected.begin() + std::int64_t(border[e + 1]) * N);
      }
      const auto alone = test::nan_tensor<Out>(rows.rows, N);
      matmul_grouped<In, Out>({}, offsets_on_device({some, N, K}), on_device<In>(rows), op_b, b,
                              alone);
      EXPECT_EQ(test::to_host(alone), wanted);
    }
  }
}

TYPED_TEST(MatmulGrouped, RefusesExtentsThatDoNotFit) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::Out;
  const auto offset = offsets_on_device({{3, 3, 3}, 5, 3});
  const Tensor<const In, 2> a = test::nan_tensor<In>(9, 3), wide = test::nan_tensor<In>(9, 6);
  const Tensor<const In, 3> b = test::nan_tensor<In>(3, 5, 4);
  const auto c = test::nan_tensor<Out>(9, 5);
  const auto db = test::nan_tensor<Out>(3, 3, 5);
  const auto message = [](const auto& call) {
    try {
      call();
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const auto product =
      message([&] { matmul_grouped<In, Out>({}, offset, a, Op::transpose, b, c); });
  EXPECT_NE(product.find("A (9 x 3) 3 of B (5 x 4)^T into C (9 x 5), 4 offsets"), std::string::npos)
      << product;
  const auto gradient = message([&] { matmul_grouped_gradient<In, Out>({}, offset, a, wide, db); });
  EXPECT_NE(gradient.find("A (9 x 3)^T C (9 x 6) into 3 of B (3 x 5), 4 offsets"),
            std::string::npos)
      << gradient;
}

}  // namespace
}  // namespace qnext
