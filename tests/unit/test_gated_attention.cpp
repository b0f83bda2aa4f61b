// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "layers/gated_attention.hpp"
#include "tests/attention_layer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace qnext {
namespace {

using reference::AttentionShape;
using test::AttentionLayer;

template <class Storage>
void compare(const AttentionShape& n) {
  AttentionLayer<Storage> layer(n);
  const auto x = test::rounded<Storage>(test::uniform(n.tokens() * n.D, -1.0, 1.0, 1));
  const auto expected = reference::gated_attention(n, layer.weights, x);
  const auto actual = layer.forward(test::documents(n.lengths), x);
  const double bound = layer.bound(x);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], bound) << "element " << i;
  }
}

template <class Storage>
class GatedAttentionLayer : public testing::Test {};
using Storages = testing::Types<bf16, float, double>;
TYPED_TEST_SUITE(GatedAttentionLayer, Storages);

TYPED_TEST(GatedAttentionLayer, EqualsTheDefinition) {
  compare<TypeParam>({.lengths = {1}, .H = 2, .G = 1, .W = 8, .rotary = 4, .D = 10});
  compare<TypeParam>({.lengths = {37, 1, 29}, .H = 3, .G = 1, .W = 24, .rotary = 8, .D = 48});
  compare<TypeParam>({.lengths = {70, 5}, .H = 8, .G = 2, .W = 16, .rotary = 16, .D = 20});
  compare<TypeParam>(
      {.lengths = {300}, .H = 4, .G = 2, .W = 32, .rotary = 8, .base = 1e7, .D = 48});
}

TYPED_TEST(GatedAttentionLayer, EqualsTheDefinitionWithoutGate) {
  compare<TypeParam>(
      {.lengths = {9, 33}, .H = 4, .G = 2, .W = 16, .rotary = 16, .gated = false, .D = 24});
}

TEST(GatedAttentionWeights, HaveTheNamesAndShapesOfTheReleasedFile) {
  ParameterTable table;
  const GatedAttention<bf16> layer(
      {.model_width = 48, .heads = 3, .key_value_heads = 1, .head_width = 24, .rotary_width = 8},
      ProcessGrid{}, table, "model.layers.3.self_attn");
  const auto shape = [&](const std::string& name) {
    const Parameter* const row = table.find("model.layers.3.self_attn." + name + ".weight");
    return row == nullptr
               ? std::vector<std::int64_t>{}
               : std::vector<std::int64_t>(row->shard.global_extent.begin(),
                                           row->shard.global_extent.begin() + row->shard.rank);
  };
  using Extents = std::vector<std::int64_t>;
  EXPECT_EQ(table.rows().size(), 6u);
  EXPECT_EQ(shape("q_proj"), (Extents{3 * 48, 48}));
  EXPECT_EQ(shape("k_proj"), (Extents{24, 48}));
  EXPECT_EQ(shape("v_proj"), (Extents{24, 48}));
  EXPECT_EQ(shape("o_proj"), (Extents{48, 72}));
  EXPECT_EQ(shape("q_norm"), (Extents{24}));
  EXPECT_EQ(shape("k_norm"), (Extents{24}));
  const Parameter& norm = *table.find("model.layers.3.self_attn.q_norm.weight");
  EXPECT_EQ(norm.type, DataType::float32);
  EXPECT_EQ(norm.decay, Decay::no);
  EXPECT_TRUE(norm.zero_centred_norm);
}

// Row i of the projection of the query holds the number i in column 0, and x is 1 there: then the
// projected channels are their own index. The attention of one token is its v, so that the output
// shows which rows were taken as the gate: those behind the query of the same head.
TEST(GatedAttentionLayout, QueryAndGateAlternateByHead) {
  const AttentionShape n{.lengths = {1}, .H = 4, .G = 2, .W = 6, .rotary = 2, .D = 24};
  AttentionLayer<double> layer(n);
  std::vector<double> q(n.H * 2 * n.W * n.D, 0.0), v(n.G * n.W * n.D, 0.0), o(n.D * n.H * n.W, 0.0);
  for (int row = 0; row < n.H * 2 * n.W; ++row) {
    q[row * n.D] = 0.01 * row;
  }
  for (int row = 0; row < n.G * n.W; ++row) {
    v[row * n.D] = 1.0;
  }
  for (int i = 0; i < n.H * n.W; ++i) {
    o[i * n.H * n.W + i] = 1.0;
  }
  layer.set("q_proj", q);
  layer.set("v_proj", v);
  layer.set("o_proj", o);
  std::vector<double> x(n.D, 0.0);
  x[0] = 1.0;
  const auto y = layer.forward(test::documents({1}), x);
  for (int h = 0; h < n.H; ++h) {
    for (int w = 0; w < n.W; ++w) {
      const double index = 0.01 * (h * 2 * n.W + n.W + w);
      EXPECT_NEAR(y[h * n.W + w], 1.0 / (1.0 + std::exp(-index)), 8 * 0x1.0p-52);
    }
  }
}

void expect_refusal(const GatedAttentionConfig& config, const std::string& message) {
  ParameterTable table;
  try {
    const GatedAttention<float> layer(config, ProcessGrid{}, table, "attn");
    ADD_FAILURE() << "not refused: " << message;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
  }
}

TEST(GatedAttentionConfig, IsChecked) {
  const GatedAttentionConfig good{
      .model_width = 8, .heads = 4, .key_value_heads = 2, .head_width = 8, .rotary_width = 4};
  auto heads = good;
  heads.heads = 3;
  expect_refusal(heads, "attention: heads = 3, wanted a multiple of key_value_heads = 2");
  auto rotary = good;
  rotary.rotary_width = 3;
  expect_refusal(rotary, "attention: rotary_width = 3, wanted an even number up to head_width = 8");
}

}  // namespace
}  // namespace qnext
