// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/attention.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace qnext {
namespace {

using reference::AttentionShape;

template <class Storage>
struct Memory {
  Arena arena;
  AttentionWork<Accum<Storage>> work;

  Memory(const AttentionShape& n, const AttentionTiles& tiles) {
    const MicrobatchShape microbatch{n.tokens(), static_cast<int>(n.lengths.size()), 1};
    Arena plan;
    reserve_attention_work<Storage>(plan, {n.H, n.G, n.W}, tiles, microbatch);
    arena = Arena(plan.peak());
    work = reserve_attention_work<Storage>(arena, {n.H, n.G, n.W}, tiles, microbatch);
    test::poison(work.slots);
  }
};

/// Operands that are numbers of `Storage`.
template <class Storage>
struct Operands {
  std::vector<double> q, k, v, gate;

  explicit Operands(const AttentionShape& n)
      : q(test::rounded<Storage>(test::uniform(n.tokens() * n.H * n.W, -1.0, 1.0, 1))),
        k(test::rounded<Storage>(test::uniform(n.tokens() * n.G * n.W, -1.0, 1.0, 2))),
        v(test::rounded<Storage>(test::uniform(n.tokens() * n.G * n.W, -1.0, 1.0, 3))) {}

  AttentionInput<Storage> input(const AttentionShape& n) const {
    const int T = n.tokens();
    return {test::to_device<Storage>(q, T, n.H, n.W), test::to_device<Storage>(k, T, n.G, n.W),
            test::to_device<Storage>(v, T, n.G, n.W)};
  }
};

template <class Storage>
class Attention : public testing::Test {};
using Storages = testing::Types<bf16, float, double>;
TYPED_TEST_SUITE(Attention, Storages);

// Operands are at most 1. A score sums W products, of size at most sqrt(W) after scaling: its error
// is at most W^1.5 epsilon, and so is the relative error of a weight, twice with the sum below it.
// The weighted mean of v adds a rounding for each key, the rescaling one for each tile. In bf16 a
// weight is rounded by 2^-9 of itself and the result by 2^-9: less than one epsilon, 2^-7.
template <class Storage>
double attention_bound(const AttentionShape& n) {
  const double longest = *std::max_element(n.lengths.begin(), n.lengths.end());
  return (4.0 * std::pow(n.W, 1.5) + 3.0 * longest + 16.0) * test::epsilon_of<Accum<Storage>>() +
         test::epsilon_of<Storage>();
}

template <class Storage>
void compare(const AttentionShape& n, const AttentionTiles& tiles) {
  using Real = Accum<Storage>;
  const Operands<Storage> operands(n);
  const int T = n.tokens();
  const auto out = test::nan_tensor<Storage>(T, n.H, n.W);
  const auto lse = test::nan_tensor<Real>(T, n.H);
  attention_forward<Storage>(Exec{}, test::documents(n.lengths), tiles, operands.input(n), {}, out,
                             lse, Memory<Storage>(n, tiles).work);
  const auto expected = reference::attention(n, operands.q, operands.k, operands.v);
  const auto actual = test::to_host(out), actual_lse = test::to_host(lse);
  const double bound = attention_bound<Storage>(n);
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected.out[i], bound) << "element " << i;
  }
  const double lse_bound = attention_bound<Real>(n) + 8.0 * test::epsilon_of<Real>();
  for (std::size_t i = 0; i < actual_lse.size(); ++i) {
    ASSERT_NEAR(actual_lse[i], expected.lse[i], lse_bound) << "row " << i;
  }
}

// One token, odd lengths, several documents, grouped heads, widths that are no multiple of a tile.
TYPED_TEST(Attention, EqualsTheDefinition) {
  const auto usual = AttentionTiles::usual();
  compare<TypeParam>({.lengths = {1}, .H = 1, .G = 1, .W = 8}, usual);
  compare<TypeParam>({.lengths = {63, 1, 40}, .H = 3, .G = 1, .W = 24}, usual);
  compare<TypeParam>({.lengths = {100, 29}, .H = 8, .G = 2, .W = 32}, usual);
  compare<TypeParam>({.lengths = {131}, .H = 2, .G = 2, .W = 64}, usual);
  compare<TypeParam>({.lengths = {7, 150}, .H = 2, .G = 1, .W = 128}, usual);
  compare<TypeParam>({.lengths = {70}, .H = 2, .G = 1, .W = 256}, usual);
  compare<TypeParam>({.lengths = {300}, .H = 4, .G = 2, .W = 32}, usual);
}

// Heads that do not divide the tile, tiles of one row, tiles longer than the document.
TYPED_TEST(Attention, EqualsTheDefinitionForAnyTile) {
  const AttentionShape n{.lengths = {37, 1, 60}, .H = 6, .G = 2, .W = 24};
  for (const auto& tiles : {AttentionTiles{1, 1}, AttentionTiles{2, 64}, AttentionTiles{13, 7},
                            AttentionTiles{64, 5}, AttentionTiles{256, 256}}) {
    compare<TypeParam>(n, tiles);
  }
}

// Scores up to 3e4 far apart: the running maximum moves with every tile, nothing overflows.
TEST(AttentionSoftmax, SurvivesLargeScores) {
  const AttentionShape n{.lengths = {90}, .H = 2, .G = 1, .W = 16};
  const AttentionTiles tiles{8, 4};
  Operands<float> operands(n);
  for (int t = 0; t < 90; ++t) {
    for (int w = 0; w < n.W; ++w) {
      operands.k[t * n.W + w] *= static_cast<float>(100 * t);
    }
  }
  const auto out = test::nan_tensor<float>(90, 2, 16);
  const auto lse = test::nan_tensor<float>(90, 2);
  attention_forward<float>(Exec{}, test::documents(n.lengths), tiles, operands.input(n), {}, out,
                           lse, Memory<float>(n, tiles).work);
  const auto expected = reference::attention(n, operands.q, operands.k, operands.v);
  const auto actual = test::to_host(out);
  // Relative to the largest score a score is off by W epsilon, which a weight sees as it is.
  const double largest = 100.0 * 90 * n.W / 4.0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected.out[i], 2.0 * n.W * largest * test::epsilon_of<float>());
  }
}

// The gate of a head lies behind its query. With v = 1 the attention is 1, so that the output is
// the gate's own index, whatever the heads and widths.
TEST(AttentionGate, LiesBehindTheQueryOfItsHead) {
  const AttentionShape n{.lengths = {5, 2}, .H = 6, .G = 2, .W = 12};
  const int T = n.tokens();
  Operands<double> operands(n);
  for (double& v : operands.v) {
    v = 1.0;
  }
  std::vector<double> projected(T * n.H * 2 * n.W, std::numeric_limits<double>::quiet_NaN());
  const auto index = [&](int t, int h, int w) { return 1e-3 * ((t * n.H + h) * n.W + w); };
  for (int t = 0; t < T; ++t) {
    for (int h = 0; h < n.H; ++h) {
      for (int w = 0; w < n.W; ++w) {
        projected[(t * n.H + h) * 2 * n.W + n.W + w] = index(t, h, w);
      }
    }
  }
  const auto tiles = AttentionTiles::usual();
  const auto out = test::nan_tensor(T, n.H, n.W);
  attention_forward<double>(Exec{}, test::documents(n.lengths), tiles, operands.input(n),
                            test::to_device(projected, T, n.H, 2 * n.W), out,
                            test::nan_tensor(T, n.H), Memory<double>(n, tiles).work);
  const auto actual = test::to_host(out);
  for (int t = 0; t < T; ++t) {
    for (int h = 0; h < n.H; ++h) {
      for (int w = 0; w < n.W; ++w) {
        ASSERT_NEAR(actual[(t * n.H + h) * n.W + w], 1.0 / (1.0 + std::exp(-index(t, h, w))),
                    16 * 0x1.0p-52);
      }
    }
  }
}

// A number that is not finite must not be lost: it reaches every later token of its document and
// no token of another one.
TEST(AttentionSoftmax, KeepsNaN) {
  const AttentionShape n{.lengths = {10, 9}, .H = 2, .G = 1, .W = 8};
  Operands<float> operands(n);
  operands.k[4 * n.W] = std::numeric_limits<double>::quiet_NaN();
  const AttentionTiles tiles{4, 3};
  const auto out = test::nan_tensor<float>(n.tokens(), n.H, n.W);
  const auto lse = test::nan_tensor<float>(n.tokens(), n.H);
  attention_forward<float>(Exec{}, test::documents(n.lengths), tiles, operands.input(n), {}, out,
                           lse, Memory<float>(n, tiles).work);
  const auto actual = test::to_host(out);
  for (int t = 0; t < n.tokens(); ++t) {
    for (int i = 0; i < n.H * n.W; ++i) {
      ASSERT_EQ(std::isnan(actual[t * n.H * n.W + i]), t >= 4 && t < 10) << "token " << t;
    }
  }
}

}  // namespace
}  // namespace qnext
