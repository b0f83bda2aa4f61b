// SPDX-License-Identifier: Apache-2.0
#include "app/fine_tune_section.hpp"
#include "layers/adamw.hpp"
#include "layers/expert_projection.hpp"
#include "layers/linear.hpp"
#include "tests/model_support.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

namespace qnext {
namespace {

struct Extents {
  int T, in, out, rank;
};

using Numbers = std::vector<double>;

// (M, K) (K, N), of rows that may be read as columns.
Numbers product(int M, int K, int N, const Numbers& a, bool transpose_a, const Numbers& b,
                bool transpose_b) {
  Numbers c(static_cast<std::size_t>(M) * N, 0.0);
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      for (int k = 0; k < K; ++k) {
        c[m * N + n] +=
            a[transpose_a ? k * M + m : m * K + k] * b[transpose_b ? n * K + k : k * N + n];
      }
    }
  }
  return c;
}

Numbers scaled(Numbers values, double factor) {
  for (double& value : values) {
    value *= factor;
  }
  return values;
}

Numbers sum(Numbers a, const Numbers& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] += b[i];
  }
  return a;
}

template <class Storage>
struct Case {
  using Real = Accum<Storage>;
  Extents n;
  AdapterConfig config;
  ParameterTable table;
  std::unique_ptr<Linear<Storage>> linear;
  Numbers w, a, b, x, dy;

  explicit Case(const Extents& extents)
      : n(extents), config{.rank = n.rank, .alpha = 1.5 * n.rank, .targets = {"y_proj"}} {
    table.begin_adapters(config);
    linear = std::make_unique<Linear<Storage>>(
        table, ProcessGrid{},
        Parameter{.name = "x.y_proj.weight", .shard = Shard::whole({n.out, n.in})});
    table.lay_out();
    w = set("x.y_proj.weight", 1);
    a = set("x.y_proj.lora_A.weight", 2);
    b = set("x.y_proj.lora_B.weight", 3);
    x = test::rounded<Storage>(test::uniform(n.T * n.in, -1.0, 1.0, 4));
    dy = test::rounded<Storage>(test::uniform(n.T * n.out, -1.0, 1.0, 5));
  }

  Numbers set(const char* name, int seed) {
    const Parameter& row = *table.find(name);
    const auto values = test::rounded<Storage>(test::uniform(row.elements(), -1.0, 1.0, seed));
    Kokkos::deep_copy(table.values<Storage>(row), test::to_device<Storage>(values, values.size()));
    return values;
  }
  Tensor<Storage, 2> low() const { return test::nan_tensor<Storage>(n.T + 2, n.rank); }
  Tensor<Storage, 2> inputs() const { return test::to_device<Storage>(x, n.T, n.in); }
  Tensor<Storage, 2> gradients() const { return test::to_device<Storage>(dy, n.T, n.out); }

  struct Definition {
    Numbers y, dx, da, db;
  };
  Definition definition() const {
    const double scale = 1.5;
    const auto u = scaled(product(n.T, n.in, n.rank, x, false, a, true), scale);
    const auto v = scaled(product(n.T, n.out, n.rank, dy, false, b, false), scale);
    return {.y = sum(product(n.T, n.in, n.out, x, false, w, true),
                     product(n.T, n.rank, n.out, u, false, b, true)),
            .dx = sum(product(n.T, n.out, n.in, dy, false, w, false),
                      product(n.T, n.rank, n.in, v, false, a, false)),
            .da = product(n.rank, n.T, n.in, v, true, x, false),
            .db = product(n.out, n.T, n.rank, dy, true, u, false)};
  }

  // All numbers are below 1 and scale is 3/2, so that a sum of K products and one of r times L
  // products is below K + 1.5 r L; each of them is off by at most (K + r + L + 4) roundings of the
  // sums. bf16 rounds the small product and its scaling too, each r L terms, and what is stored.
  void expect_near(const std::vector<double>& actual, const Numbers& expected, int K, int L) const {
    const double largest = K + 1.5 * n.rank * L;
    const double stored = sizeof(Storage) == 2 ? 4.0 * test::epsilon_of<Storage>() : 0.0;
    const double bound = largest * ((K + n.rank + L + 4) * test::epsilon_of<Real>() + stored);
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t i = 0; i < actual.size(); ++i) {
      ASSERT_NEAR(actual[i], expected[i], bound) << "element " << i;
    }
  }
};

class AdapterProducts : public testing::TestWithParam<Extents> {};

template <class Storage>
void expect_definition(const Extents& n) {
  const Case<Storage> c(n);
  const auto expected = c.definition();

  const auto y = test::nan_tensor<Storage>(n.T, n.out);
  c.linear->template forward<Storage>(Exec{}, c.inputs(), y, c.low());
  c.expect_near(test::to_host(y), expected.y, n.in, n.in);

  const auto dx = test::nan_tensor<Storage>(n.T, n.in);
  c.linear->backward_input(Exec{}, c.gradients(), dx, c.low());
  c.expect_near(test::to_host(dx), expected.dx, n.out, n.out);

  c.table.zero_gradients(Exec{});
  c.linear->backward_weight(Exec{}, c.gradients(), c.inputs(), c.low());
  const auto gradient = [&](const char* name) {
    return test::to_host(c.table.template gradients<Accum<Storage>>(*c.table.find(name)));
  };
  c.expect_near(gradient("x.y_proj.lora_A.weight"), expected.da, 0, n.T * n.out);
  c.expect_near(gradient("x.y_proj.lora_B.weight"), expected.db, 0, n.T * n.in);
}

TEST_P(AdapterProducts, EqualTheDefinitionInDouble) {
  expect_definition<double>(GetParam());
}
TEST_P(AdapterProducts, EqualTheDefinitionInFloat) {
  expect_definition<float>(GetParam());
}
TEST_P(AdapterProducts, EqualTheDefinitionInBf16) {
  expect_definition<bf16>(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Shapes, AdapterProducts,
                         testing::Values(Extents{1, 8, 5, 1}, Extents{37, 48, 33, 3},
                                         Extents{130, 31, 64, 8}));

struct Rows {
  Extents n;
  std::vector<int> offset;  // of each expert, and behind the last
};

// One expert after the other as a projection of its own; rows behind the last stay as they were.
template <class Storage>
void expect_each_expert(const Rows& rows) {
  using Real = Accum<Storage>;
  const Extents& n = rows.n;
  const int E = static_cast<int>(rows.offset.size()) - 1;
  const int used = rows.offset.back();
  ParameterTable table;
  table.begin_adapters({.rank = n.rank, .alpha = 1.5 * n.rank, .targets = {"experts.y_proj"}});
  const ExpertProjection<Storage> projection(
      table, {.name = "x.experts.y_proj", .shard = Shard::whole({E, n.out, n.in})});
  table.lay_out();
  const auto set = [&](const Parameter& row, int seed) {
    const auto values = test::rounded<Storage>(test::uniform(row.elements(), -1.0, 1.0, seed));
    Kokkos::deep_copy(table.values<Storage>(row), test::to_device<Storage>(values, values.size()));
    return values;
  };
  const Parameter& of_w = *table.find("x.experts.y_proj");
  const Parameter& of_a = *table.find("x.experts.y_proj.lora_A.weight");
  const Parameter& of_b = *table.find("x.experts.y_proj.lora_B.weight");
  const Numbers w = set(of_w, 1), a = set(of_a, 2), b = set(of_b, 3);
  const Numbers x = test::rounded<Storage>(test::uniform(n.T * n.in, -1.0, 1.0, 4));
  const Numbers dy = test::rounded<Storage>(test::uniform(n.T * n.out, -1.0, 1.0, 5));
  const Tensor<int, 1> offset("offset", E + 1);
  Kokkos::deep_copy(offset, HostTensor<const int, 1>(rows.offset.data(), rows.offset.size()));
  const auto low = test::nan_tensor<Storage>(n.T, n.rank);
  const auto inputs = test::to_device<Storage>(x, n.T, n.in);
  const auto gradients = test::to_device<Storage>(dy, n.T, n.out);
  const auto y = test::nan_tensor<Storage>(n.T, n.out), dx = test::nan_tensor<Storage>(n.T, n.in);
  projection.forward(Exec{}, offset, inputs, y, low);
  projection.backward_input(Exec{}, offset, gradients, dx, low);
  table.zero_gradients(Exec{});
  projection.backward_weight(Exec{}, offset, gradients, inputs, low);
  EXPECT_TRUE(projection.trained());
  const Numbers all_y = test::to_host(y), all_dx = test::to_host(dx);
  const Numbers da = test::to_host(table.gradients<Real>(of_a));
  const Numbers db = test::to_host(table.gradients<Real>(of_b));
  const auto part = [](const Numbers& all, int first, int count, int width) {
    return Numbers(all.begin() + std::int64_t{first} * width,
                   all.begin() + std::int64_t{first + count} * width);
  };
  for (int e = 0; e < E; ++e) {
    SCOPED_TRACE(testing::Message() << "expert " << e);
    const int first = rows.offset[e], count = rows.offset[e + 1] - first;
    Case<Storage> alone({std::max(count, 1), n.in, n.out, n.rank});
    alone.n.T = count;
    alone.w = part(w, e * n.out, n.out, n.in);
    alone.a = part(a, e * n.rank, n.rank, n.in);
    alone.b = part(b, e * n.out, n.out, n.rank);
    alone.x = part(x, first, count, n.in);
    alone.dy = part(dy, first, count, n.out);
    const auto expected = alone.definition();
    alone.expect_near(part(all_y, first, count, n.out), expected.y, n.in, n.in);
    alone.expect_near(part(all_dx, first, count, n.in), expected.dx, n.out, n.out);
    alone.expect_near(part(da, e * n.rank, n.rank, n.in), expected.da, 0, count * n.out);
    alone.expect_near(part(db, e * n.out, n.out, n.rank), expected.db, 0, count * n.in);
  }
  for (const double behind : part(all_y, used, n.T - used, n.out)) {
    EXPECT_TRUE(std::isnan(behind));
  }
}

class ExpertAdapters : public testing::TestWithParam<Rows> {};

TEST_P(ExpertAdapters, AreThoseOfEachExpertAloneInDouble) {
  expect_each_expert<double>(GetParam());
}
TEST_P(ExpertAdapters, AreThoseOfEachExpertAloneInFloat) {
  expect_each_expert<float>(GetParam());
}
TEST_P(ExpertAdapters, AreThoseOfEachExpertAloneInBf16) {
  expect_each_expert<bf16>(GetParam());
}

// Experts without rows and with one, rows of no expert, widths that are no multiple of a tile.
INSTANTIATE_TEST_SUITE_P(Shapes, ExpertAdapters,
                         testing::Values(Rows{{1, 8, 5, 1}, {0, 1}},
                                         Rows{{40, 33, 48, 3}, {0, 0, 17, 18, 37}},
                                         Rows{{130, 31, 64, 8}, {0, 70, 70, 130}}));

// What PEFT starts with: A uniform within 1 / sqrt(in), B zero; the base model comes out, bit for
// bit, and the frozen weight has no memory but its own.
TEST(Adapter, StartsAsTheBaseModel) {
  ModelConfig config = test::small_model_config();
  test::ModelUnderTest<float> base(config);
  const test::TestBatch batch({23, 1, 9}, config.vocabulary, 5);
  base.loss(batch, false);
  const auto expected = test::to_host(base.saved.normed);
  config.adapters = {.rank = 4, .targets = adapter_projections(config)};
  test::ModelUnderTest<float> adapted(config);
  adapted.loss(batch, true);
  EXPECT_EQ(test::to_host(adapted.saved.normed), expected);
  int factors = 0;
  for (const Parameter& row : adapted.table.rows()) {
    const auto& group = adapted.table.groups()[row.group];
    EXPECT_EQ(row.frozen, !row.of_adapter) << row.name;
    EXPECT_EQ(group.frozen, row.frozen) << row.name;
    EXPECT_EQ(group.gradients.extent(0) == 0, row.frozen) << row.name;
    if (!row.of_adapter) {
      continue;
    }
    ++factors;
    const auto values = test::to_host(adapted.table.values<float>(row));
    const double largest =
        std::abs(*std::max_element(values.begin(), values.end(),
                                   [](double a, double b) { return std::abs(a) < std::abs(b); }));
    if (row.name.ends_with("lora_B.weight")) {
      EXPECT_EQ(largest, 0.0) << row.name;
    } else {
      const auto in = row.shard.global_extent[row.shard.rank - 1];
      const double width = 1.0 / std::sqrt(static_cast<double>(in));
      EXPECT_LE(largest, width) << row.name;
      EXPECT_GT(largest, 0.8 * width) << row.name;  // of 32 numbers or more: misses 1 in 1000
    }
  }
  EXPECT_EQ(factors, 2 * static_cast<int>(config.adapters.targets.size()));
  const AdamW optimizer({}, adapted.table);
  for (std::size_t g = 0; g < optimizer.buffers().size(); ++g) {
    const AdamW::Buffers& buffers = optimizer.buffers()[g];
    EXPECT_EQ(buffers.first_moment.extent(0) == 0, adapted.table.groups()[g].frozen);
    EXPECT_EQ(buffers.master.extent(0), 0u);
  }
}

// The projections that the deck may name are those that layers look for adapters of.
TEST(Adapter, IsBesideEachProjectionThatThereIs) {
  ModelConfig config = test::small_model_config();
  config.adapters = {.rank = 2, .targets = adapter_projections(config)};
  ParameterTable table;
  const Model<float> model(config, ProcessGrid{}, table);
  std::set<std::string> found;
  for (const Parameter& row : table.rows()) {
    const std::string ending = ".lora_A.weight";
    if (row.name.ends_with(ending)) {
      found.insert(row.name.substr(0, row.name.size() - ending.size()));
    }
  }
  const auto known = adapter_projections(config);
  EXPECT_EQ(found, std::set<std::string>(known.begin(), known.end()));
}

TEST(Adapter, IsNotBesideAHeadThatIsTheEmbedding) {
  ModelConfig config = test::small_model_config();
  EXPECT_EQ(unknown_target({"lm_head", "gate", "shared_expert_gate"}, config), "");
  config.tied_head = true;
  EXPECT_EQ(unknown_target({"lm_head"}, config),
            "lm_head is the embedding of this model, which takes no adapter");
}

TEST(Adapter, TargetsAreLastWordsOfNames) {
  const AdapterConfig config{
      .rank = 4, .alpha = 6.0, .targets = {"q_proj", "layers.2.mlp.up_proj"}};
  EXPECT_TRUE(config.targets_weight("model.layers.3.self_attn.q_proj.weight"));
  EXPECT_TRUE(config.targets_weight("model.layers.2.mlp.up_proj.weight"));
  EXPECT_FALSE(config.targets_weight("model.layers.12.mlp.up_proj.weight"));
  EXPECT_FALSE(config.targets_weight("model.layers.3.self_attn.xq_proj.weight"));
  EXPECT_FALSE(config.targets_weight("model.layers.2.mlp.experts.up_proj"));
  EXPECT_FALSE(config.targets_weight("mtp.layers.0.self_attn.q_proj.weight"));
  const AdapterConfig module{.rank = 1, .targets = {"mtp.layers.0.self_attn.q_proj"}};
  EXPECT_TRUE(module.targets_weight("mtp.layers.0.self_attn.q_proj.weight"));
  EXPECT_FALSE(module.targets_weight("mtp.layers.0.self_attn.k_proj.weight"));
  EXPECT_FALSE(AdapterConfig{.targets = config.targets}.targets_weight("q_proj.weight"));
  EXPECT_EQ(config.scale(), 1.5);
  const AdapterConfig stacked{.rank = 1, .targets = {"down_proj", "experts.gate_up_proj"}};
  EXPECT_TRUE(stacked.targets_weight("model.layers.0.mlp.experts.gate_up_proj"));
  EXPECT_FALSE(stacked.targets_weight("model.layers.0.mlp.experts.down_proj"));
  EXPECT_TRUE(stacked.targets_weight("model.layers.0.mlp.shared_expert.down_proj.weight"));
  EXPECT_EQ((AdapterConfig{.rank = 4, .alpha = 6.0, .rank_stabilised = true}.scale()), 3.0);
}

}  // namespace
}  // namespace qnext
