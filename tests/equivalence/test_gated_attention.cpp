// SPDX-License-Identifier: Apache-2.0
#include "tests/attention_layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace qnext {
namespace {

using reference::AttentionShape;
using test::AttentionLayer;

const AttentionShape shape{
    .lengths = {41, 90}, .H = 4, .G = 2, .W = 24, .rotary = 8, .base = 1e4, .D = 20};

std::vector<double> rows(const std::vector<double>& all, int width, int first, int count) {
  return {all.begin() + first * width, all.begin() + (first + count) * width};
}

std::vector<double> joined(std::vector<double> first, const std::vector<double>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

/// y and dx of documents that lie in one row.
template <class Storage>
std::pair<std::vector<double>, std::vector<double>> pass(AttentionLayer<Storage>& layer,
                                                         const std::vector<int>& lengths,
                                                         const std::vector<double>& x,
                                                         const std::vector<double>& dy) {
  const auto documents = test::documents(lengths);
  const auto y = layer.forward(documents, x);
  return {y, layer.backward(documents, dy)};
}

struct Kernels {
  std::vector<double> out, dquery, dkey, dvalue;
};

/// All kernels of the layer, forward and backward, without the projections.
template <class Storage>
Kernels kernels(const AttentionShape& n, const std::vector<int>& lengths,
                const std::vector<double>& query, const std::vector<double>& key,
                const std::vector<double>& value, const std::vector<double>& dout) {
  using Real = Accum<Storage>;
  const Exec exec;
  const auto documents = test::documents(lengths);
  const int T = documents.position.extent_int(0), G = n.G, H = n.H, W = n.W;
  const auto tiles = AttentionTiles::usual();
  const auto rotation = test::nan_tensor<Real>(T, n.rotary);
  rotary_angles<Real>(exec, documents.position, n.base, rotation);
  const Tensor<Real, 1> weight("weight", W), dweight("dweight", W);
  const auto partial = test::nan_tensor<Real>(head_norm_blocks(T), W);
  const HeadNorm<Storage> q_norm{test::to_device<Storage>(query, T, H, 2 * W), weight, rotation,
                                 Real(1e-6)};
  const HeadNorm<Storage> k_norm{test::to_device<Storage>(key, T, G, W), weight, rotation,
                                 Real(1e-6)};
  const auto q = test::nan_tensor<Storage>(T, H, W), k = test::nan_tensor<Storage>(T, G, W);
  norm_and_rotate<Storage>(exec, q_norm, q);
  norm_and_rotate<Storage>(exec, k_norm, k);
  const MicrobatchShape microbatch{T, documents.count, 1};
  Arena plan;
  reserve_attention_work<Storage>(plan, {H, G, W}, tiles, microbatch);
  Arena arena(plan.peak());
  const auto work = reserve_attention_work<Storage>(arena, {H, G, W}, tiles, microbatch);
  const AttentionInput<Storage> in{q, k, test::to_device<Storage>(value, T, G, W)};
  const auto out = test::nan_tensor<Storage>(T, H, W);
  const auto lse = test::nan_tensor<Real>(T, H), delta = test::nan_tensor<Real>(T, H);
  attention_forward<Storage>(exec, documents, tiles, in, q_norm.raw, out, lse, work);
  const auto dattended = test::to_device<Storage>(dout, T, H, W);
  const auto dquery = test::nan_tensor<Storage>(T, H, 2 * W);
  const auto dk = test::nan_tensor<Storage>(T, G, W), dv = test::nan_tensor<Storage>(T, G, W);
  attention_gate_backward<Storage>(exec, q_norm.raw, out, dattended, dquery, delta);
  attention_backward<Storage>(exec, documents, tiles, in, dattended, lse, delta, {dquery, dk, dv},
                              work);
  norm_and_rotate_backward<Storage>(exec, q_norm, dquery, dquery, partial, dweight);
  norm_and_rotate_backward<Storage>(exec, k_norm, dk, dk, partial, dweight);
  return {test::to_host(out), test::to_host(dquery), test::to_host(dk), test::to_host(dv)};
}

template <class Storage>
class GatedAttentionEquivalence : public testing::Test {};
using Storages = testing::Types<bf16, float, double>;
TYPED_TEST_SUITE(GatedAttentionEquivalence, Storages);

// Tiles begin with the document, so that a document has the same arithmetic wherever it lies. (The
// projections around the kernels see another number of rows, which may change their order of
// summation: this is about the kernels.)
TYPED_TEST(GatedAttentionEquivalence, PackedDocumentsAreDocumentsAlone) {
  const auto n = shape;
  const auto [a, b] = std::pair(n.lengths[0], n.lengths[1]);
  const auto query = test::uniform((a + b) * n.H * 2 * n.W, -2.0, 2.0, 1);
  const auto key = test::uniform((a + b) * n.G * n.W, -2.0, 2.0, 2);
  const auto value = test::uniform((a + b) * n.G * n.W, -2.0, 2.0, 3);
  const auto dout = test::uniform((a + b) * n.H * n.W, -2.0, 2.0, 4);
  const auto packed = kernels<TypeParam>(n, {a, b}, query, key, value, dout);
  const auto alone =
      kernels<TypeParam>(n, {b}, rows(query, n.H * 2 * n.W, a, b), rows(key, n.G * n.W, a, b),
                         rows(value, n.G * n.W, a, b), rows(dout, n.H * n.W, a, b));
  EXPECT_EQ(rows(packed.out, n.H * n.W, a, b), alone.out);
  EXPECT_EQ(rows(packed.dquery, n.H * 2 * n.W, a, b), alone.dquery);
  EXPECT_EQ(rows(packed.dkey, n.G * n.W, a, b), alone.dkey);
  EXPECT_EQ(rows(packed.dvalue, n.G * n.W, a, b), alone.dvalue);
}

// Whatever the first document holds, not a bit of the second one changes.
TYPED_TEST(GatedAttentionEquivalence, DocumentsDoNotLeak) {
  const auto n = shape;
  AttentionLayer<TypeParam> layer(n);
  const auto [a, b] = std::pair(n.lengths[0], n.lengths[1]);
  const auto x = test::uniform((a + b) * n.D, -1.0, 1.0, 1);
  const auto dy = test::uniform((a + b) * n.D, -1.0, 1.0, 2);
  const auto other = test::uniform(a * n.D, -30.0, 30.0, 3);
  const auto one = pass(layer, {a, b}, x, dy);
  const auto two =
      pass(layer, {a, b}, joined(other, rows(x, n.D, a, b)), joined(other, rows(dy, n.D, a, b)));
  EXPECT_NE(rows(one.first, n.D, 0, a), rows(two.first, n.D, 0, a));
  EXPECT_EQ(rows(one.first, n.D, a, b), rows(two.first, n.D, a, b));
  EXPECT_EQ(rows(one.second, n.D, a, b), rows(two.second, n.D, a, b));
  // A later token never reaches an earlier one: the first document, with another second one.
  const auto three =
      pass(layer, {b, a}, joined(rows(x, n.D, a, b), other), joined(rows(dy, n.D, a, b), other));
  const auto four = pass(layer, {b, a}, joined(rows(x, n.D, a, b), rows(x, n.D, 0, a)),
                         joined(rows(dy, n.D, a, b), rows(dy, n.D, 0, a)));
  EXPECT_EQ(rows(three.first, n.D, 0, b), rows(four.first, n.D, 0, b));
  EXPECT_EQ(rows(three.second, n.D, 0, b), rows(four.second, n.D, 0, b));
}

// The result of a team does not depend on which thread it runs on.
TYPED_TEST(GatedAttentionEquivalence, ARepeatedPassHasTheSameBits) {
  const auto n = shape;
  AttentionLayer<TypeParam> layer(n);
  const auto x = test::uniform(n.tokens() * n.D, -1.0, 1.0, 1);
  const auto dy = test::uniform(n.tokens() * n.D, -1.0, 1.0, 2);
  const auto one = pass(layer, n.lengths, x, dy);
  const auto q_norm = layer.gradient("q_norm"), k_proj = layer.gradient("k_proj");
  const auto two = pass(layer, n.lengths, x, dy);
  EXPECT_EQ(one, two);
  EXPECT_EQ(q_norm, layer.gradient("q_norm"));
  EXPECT_EQ(k_proj, layer.gradient("k_proj"));
}

// Two ways of the same sums, each as far from the exact result as the bound of the layer says. Both
// round to Storage in the same places, but in bf16 a sum on the other side of a border between two
// numbers moves q, k or the output by a whole spacing.
template <class Storage>
double piecewise_bound(const AttentionLayer<Storage>& layer, const std::vector<double>& x) {
  return 2.0 * layer.bound(x, !std::is_same_v<Storage, bf16>);
}

void expect_close(const std::vector<double>& actual, const std::vector<double>& expected,
                  double bound) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], bound) << "element " << i;
  }
}

/// Feeds both documents of `shape` in pieces of these lengths, the same for both.
template <class Storage>
void compare_pieces(const std::vector<int>& pieces, bool by_step) {
  auto n = shape;
  int length = 0;
  for (const int piece : pieces) {
    length += piece;
  }
  n.lengths = {length, length};
  AttentionLayer<Storage> layer(n);
  const auto x = test::rounded<Storage>(test::uniform(2 * length * n.D, -1.0, 1.0, 1));
  const auto whole = layer.forward(test::documents(n.lengths), x);
  auto state = layer.make_state(2, length);
  int first = 0;
  for (const int piece : pieces) {
    const auto documents = make_documents({piece, piece}, 1, {first, first});
    const auto input = joined(rows(x, n.D, first, piece), rows(x, n.D, length + first, piece));
    const auto y = by_step ? layer.step(documents, input, state)
                           : layer.forward(documents, input, first == 0 ? nullptr : &state, &state);
    const auto expected =
        joined(rows(whole, n.D, first, piece), rows(whole, n.D, length + first, piece));
    expect_close(y, expected, piecewise_bound(layer, x));
    first += piece;
  }
}

TYPED_TEST(GatedAttentionEquivalence, PrefillInPiecesIsOnePass) {
  compare_pieces<TypeParam>({70, 1, 64, 33}, false);
}

// All heads of a block of tokens are taken together, almost as many rows as a tile has.
TYPED_TEST(GatedAttentionEquivalence, PrefillInShortPiecesIsOnePass) {
  for (const int last : {34, 40, 46, 48}) {
    compare_pieces<TypeParam>({64, last}, false);
  }
}

// Tokens of one step whose keys are cut in parts of another length: 16 x 48 of them, and more.
TYPED_TEST(GatedAttentionEquivalence, StepsAcrossLongerPartsAreRowsOfForward) {
  compare_pieces<TypeParam>({766, 1, 4, 2}, true);
}

TYPED_TEST(GatedAttentionEquivalence, StepsAreRowsOfForward) {
  compare_pieces<TypeParam>({70, 1, 1, 3, 1, 2, 1}, true);
}

TYPED_TEST(GatedAttentionEquivalence, StepsFromNothingAreRowsOfForward) {
  compare_pieces<TypeParam>({1, 1, 2, 1, 1}, true);
}

// Documents of different ages decode together.
TYPED_TEST(GatedAttentionEquivalence, DocumentsStepAtTheirOwnLength) {
  auto n = shape;
  n.lengths = {12, 131};
  AttentionLayer<TypeParam> layer(n);
  const auto x = test::rounded<TypeParam>(test::uniform(n.tokens() * n.D, -1.0, 1.0, 1));
  const auto whole = layer.forward(test::documents(n.lengths), x);
  auto state = layer.make_state(2, 140);
  layer.forward(test::documents({11, 130}), joined(rows(x, n.D, 0, 11), rows(x, n.D, 12, 130)),
                nullptr, &state);
  const auto y = layer.step(make_documents({1, 1}, 1, {11, 130}),
                            joined(rows(x, n.D, 11, 1), rows(x, n.D, 142, 1)), state);
  expect_close(y, joined(rows(whole, n.D, 11, 1), rows(whole, n.D, 142, 1)),
               piecewise_bound(layer, x));
}

}  // namespace
}  // namespace qnext
