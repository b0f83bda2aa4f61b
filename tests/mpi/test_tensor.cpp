// SPDX-License-Identifier: Apache-2.0
#include "core/parts.hpp"
#include "layers/adamw.hpp"
#include "tests/model_support.hpp"
#include "tests/mpi/gradients.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace qnext {
namespace {

using test::world;

ProcessGrid tensor_grid() {
  return ProcessGrid(Degrees{.tensor = world().ranks()}, world());
}

// Heads for up to four ranks; the vocabulary, the widths of the MLPs and the tokens are no multiple
// of four.
ModelConfig config_of_ranks(int key_value_heads) {
  ModelConfig config = test::small_model_config();
  config.layer.delta_net.key_heads = 4;
  config.layer.delta_net.value_heads = 8;
  config.layer.attention.heads = 8;
  config.layer.attention.key_value_heads = key_value_heads;
  config.layer.dense.width = 22;
  config.layer.experts.shared_width = 9;
  return config;
}

struct Case {
  std::string name;
  int key_value_heads;
  bool tied_head;
  BalanceLossConfig::Form balance;
  Recompute recompute;
  double dropout;
  std::vector<int> lengths;  // of the documents
  int sequences;

  ModelConfig config() const {
    ModelConfig config = config_of_ranks(key_value_heads);
    config.tied_head = tied_head;
    config.balance.form = balance;
    config.recompute = recompute;
    return config;
  }
  test::TestBatch batch() const { return {lengths, config().vocabulary, 5, sequences}; }
  Dropout mask() const { return {dropout, 77}; }
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

// What this rank holds of a global tensor.
std::vector<double> part_of(const Shard& shard, const std::vector<double>& global) {
  const auto& g = shard.global_extent;
  std::vector<double> part;
  for (const Box& box : shard.boxes) {
    for (std::int64_t a = 0; a < box.extent[0]; ++a) {
      for (std::int64_t b = 0; b < box.extent[1]; ++b) {
        for (std::int64_t c = 0; c < box.extent[2]; ++c) {
          for (std::int64_t d = 0; d < box.extent[3]; ++d) {
            part.push_back(global[(((box.offset[0] + a) * g[1] + box.offset[1] + b) * g[2] +
                                   box.offset[2] + c) *
                                      g[3] +
                                  box.offset[3] + d]);
          }
        }
      }
    }
  }
  return part;
}

std::vector<double> values_of(const ParameterTable& table, const Parameter& row) {
  switch (row.type) {
    case DataType::bf16:
      return test::to_host(table.values<bf16>(row));
    case DataType::float32:
      return test::to_host(table.values<float>(row));
    case DataType::float64:
      return test::to_host(table.values<double>(row));
  }
  return {};
}

std::vector<double> gradient_of(const ParameterTable& table, const Parameter& row) {
  return row.type == DataType::float64 ? test::to_host(table.gradients<double>(row))
                                       : test::to_host(table.gradients<float>(row));
}

// One pass: the losses, the gradients and, behind a step of the optimizer, the parameters.
struct Result {
  std::vector<double> losses;
  std::vector<std::vector<double>> gradients;  // in table order
  std::vector<std::vector<double>> updated;
};

constexpr double learning_rate = 0.1;

// An epsilon of 1 makes the step a smooth function of the gradient, with a slope of at most
// learning_rate: without it the first step is the sign of the gradient.
template <class Storage>
Result run(test::ModelUnderTest<Storage>& fixture, const Case& c, const ProcessGrid& grid) {
  Result result;
  fixture.loss(c.batch(), true, c.mask());
  test::sum_gradients(grid, fixture.table);
  for (const auto& sum : {fixture.sums.cross_entropy, fixture.sums.mtp, fixture.sums.balance,
                          fixture.sums.router_z}) {
    result.losses.push_back(test::to_host(sum)[0]);
  }
  AdamWConfig adamw;
  adamw.epsilon = 1.0;
  adamw.clip = 0.0;
  AdamW optimizer(adamw, fixture.table);
  optimizer.copy_masters_from_parameters();
  optimizer.update(Exec{}, 1, learning_rate, 0.0);
  for (const Parameter& row : fixture.table.rows()) {
    result.gradients.push_back(gradient_of(fixture.table, row));
    result.updated.push_back(values_of(fixture.table, row));
  }
  return result;
}

// Every weight one rounding away, up or down.
template <class T>
void nudge(const ParameterTable& table, const Parameter& row, std::uint64_t seed) {
  auto values = values_of(table, row);
  const std::uint64_t key = random_key(seed, row.name);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double size = row.zero_centred_norm ? 1.0 : std::abs(values[i]);
    values[i] += (random_bits(key, i) % 2 == 0 ? 1.0 : -1.0) * test::epsilon_of<T>() * size;
  }
  Kokkos::deep_copy(table.values<T>(row), test::to_device<T>(values, values.size()));
}

template <class Storage>
Result run_alone(const Case& c, int nudged = 0) {
  test::ModelUnderTest<Storage> fixture(c.config());
  for (const Parameter& row : fixture.table.rows()) {
    if (nudged > 0 && row.alias_of.empty()) {
      row.type == data_type_of<Storage>() ? nudge<Storage>(fixture.table, row, nudged)
                                          : nudge<Accum<Storage>>(fixture.table, row, nudged);
    }
  }
  return run(fixture, c, ProcessGrid{});
}

double largest(const std::vector<double>& values) {
  double most = 0.0;
  for (const double value : values) {
    most = std::max(most, std::abs(value));
  }
  return most;
}

double difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> d(a.size());
  std::transform(a.begin(), a.end(), b.begin(), d.begin(), std::minus<>());
  return largest(d);
}

// A sum of n terms in another order is the sum of the same terms, each with an error of at most n
// eps: as if every weight and every gradient had one of n eps. What errors of one eps in all
// weights do to a number is the largest of what they do in some runs of one rank, plus one eps of
// the number; n = 64 is above every length of a sum here (tokens, widths, vocabulary).
template <class Storage>
class Bounds {
 public:
  Bounds(const Case& c, const Result& one) {
    for (int nudged = 1; nudged <= 3; ++nudged) {
      const Result other = run_alone<Storage>(c, nudged);
      losses_.resize(one.losses.size());
      gradients_.resize(one.gradients.size());
      for (std::size_t i = 0; i < one.losses.size(); ++i) {
        widen(losses_[i], {one.losses[i]}, {other.losses[i]});
      }
      for (std::size_t i = 0; i < one.gradients.size(); ++i) {
        widen(gradients_[i], one.gradients[i], other.gradients[i]);
      }
    }
  }

  double of_loss(std::size_t i) const { return terms * losses_[i]; }
  double of_gradient(std::size_t i) const { return terms * gradients_[i]; }
  double of_parameter(std::size_t i, double size) const {
    return learning_rate * of_gradient(i) + 4.0 * test::epsilon_of<Storage>() * size;
  }

 private:
  static constexpr double terms = 64.0;

  static void widen(double& bound, const std::vector<double>& one,
                    const std::vector<double>& other) {
    bound = std::max(bound, difference(one, other) + test::epsilon_of<Storage>() * largest(one));
  }

  std::vector<double> losses_, gradients_;
};

class Tensor : public testing::TestWithParam<Case> {};

template <class Storage>
void expect_equal_to_one_rank(const Case& c) {
  const Result one = run_alone<Storage>(c);
  const Bounds<Storage> bounds(c, one);
  const ProcessGrid grid = tensor_grid();
  test::ModelUnderTest<Storage> fixture(c.config(), 1, grid);
  const Result mine = run(fixture, c, grid);
  for (std::size_t i = 0; i < one.losses.size(); ++i) {
    EXPECT_GT(std::abs(one.losses[i]), 0.0);
    EXPECT_NEAR(mine.losses[i], one.losses[i], bounds.of_loss(i)) << "loss " << i;
  }
  for (std::size_t i = 0; i < one.gradients.size(); ++i) {
    const Parameter& row = fixture.table.rows()[i];
    const auto gradient = part_of(row.shard, one.gradients[i]);
    ASSERT_EQ(mine.gradients[i].size(), gradient.size()) << row.name;
    EXPECT_LT(bounds.of_gradient(i), 0.125 * largest(one.gradients[i]))
        << row.name << ": the bound would hide the share of one of four ranks";
    EXPECT_LE(difference(mine.gradients[i], gradient), bounds.of_gradient(i)) << row.name;
    EXPECT_LE(difference(mine.updated[i], part_of(row.shard, one.updated[i])),
              bounds.of_parameter(i, largest(one.updated[i])))
        << row.name;
  }
}

TEST_P(Tensor, EqualsOneRankInDouble) {
  expect_equal_to_one_rank<double>(GetParam());
}
TEST_P(Tensor, EqualsOneRankInFloat) {
  expect_equal_to_one_rank<float>(GetParam());
}

// As many key/value heads as ranks and fewer; documents that cross the borders of ranks, several
// sequences; a mask that must not depend on the ranks.
using Form = BalanceLossConfig::Form;
INSTANTIATE_TEST_SUITE_P(
    Cases, Tensor,
    testing::Values(
        Case{"HeadsForAll", 4, false, Form::megatron, Recompute::none, 0.0, {23, 1, 9}, 1},
        Case{"Tied", 2, true, Form::maxtext, Recompute::block, 0.1, {12, 5, 17, 17}, 3},
        Case{"FewerTokensThanRanks", 4, false, Form::megatron, Recompute::none, 0.0, {3}, 1},
        Case{"OneKeyHead", 1, false, Form::huggingface, Recompute::mixer, 0.0, {4, 26}, 2}),
    [](const auto& info) { return info.param.name; });

// The same bits in a second pass; the losses and, of what all hold alike, the gradients are the
// same bits on all ranks.
TEST(TensorBits, DoNotDependOnChance) {
  const Case c{"", 1, false, Form::megatron, Recompute::none, 0.1, {23, 1, 9}, 1};
  const ProcessGrid grid = tensor_grid();
  test::ModelUnderTest<float> once(c.config(), 1, grid), again(c.config(), 1, grid);
  const Result first = run(once, c, grid), second = run(again, c, grid);
  EXPECT_EQ(first.losses, second.losses);
  EXPECT_EQ(first.gradients, second.gradients);
  const auto expect_same_on_all = [](const std::vector<double>& mine, const std::string& what) {
    const auto all = world().all_gather(mine);
    for (std::size_t i = 0; i < all.size(); ++i) {
      ASSERT_EQ(all[i], mine[i % mine.size()]) << what;
    }
  };
  expect_same_on_all(first.losses, "losses");
  int replicated = 0;
  for (std::size_t i = 0; i < first.gradients.size(); ++i) {
    const Parameter& row = once.table.rows()[i];
    if (row.elements() == row.shard.global_elements()) {
      expect_same_on_all(first.gradients[i], row.name);
      ++replicated;
    }
  }
  EXPECT_GT(replicated, 10);
}

TEST(TensorWeights, AreThoseOfOneRankBitForBit) {
  const ModelConfig config = config_of_ranks(2);
  const ProcessGrid grid = tensor_grid();
  test::ModelUnderTest<bf16> one(config), mine(config, 1, grid);
  std::vector<std::int64_t> counted;
  for (std::size_t i = 0; i < one.table.rows().size(); ++i) {
    const Parameter& row = mine.table.rows()[i];
    EXPECT_EQ(values_of(mine.table, row),
              part_of(row.shard, values_of(one.table, one.table.rows()[i])))
        << row.name;
    counted.push_back(grid.counts(row) ? row.elements() : 0);
  }
  world().sum(counted);
  for (std::size_t i = 0; i < one.table.rows().size(); ++i) {
    EXPECT_EQ(counted[i], one.table.rows()[i].elements())
        << one.table.rows()[i].name << ": every number is counted by one rank";
  }
}

// In bf16 a choice of experts may change with a rounding, and takes its tokens with it. The losses
// differ as two one-rank runs do whose weights are a rounding apart, and all gradients together
// point the same way: roundings of 2^-8 in some hundred places add up to an angle of 2^-8 sqrt(100)
// = 0.04; half a radian says that nothing is missing.
TEST(TensorInBf16, RunsThrough) {
  const Case c{"", 2, false, Form::megatron, Recompute::none, 0.0, {23, 1, 9}, 1};
  const Result one = run_alone<bf16>(c);
  const Bounds<bf16> bounds(c, one);
  const ProcessGrid grid = tensor_grid();
  test::ModelUnderTest<bf16> fixture(c.config(), 1, grid);
  const Result mine = run(fixture, c, grid);
  double product = 0.0, squares = 0.0, squares_of_one = 0.0;
  for (std::size_t i = 0; i < one.gradients.size(); ++i) {
    const auto gradient = part_of(fixture.table.rows()[i].shard, one.gradients[i]);
    for (std::size_t j = 0; j < gradient.size(); ++j) {
      product += gradient[j] * mine.gradients[i][j];
      squares += mine.gradients[i][j] * mine.gradients[i][j];
      squares_of_one += gradient[j] * gradient[j];
    }
  }
  EXPECT_GT(product / std::sqrt(squares * squares_of_one), std::cos(0.5));
  EXPECT_NEAR(mine.losses[0], one.losses[0], bounds.of_loss(0) / 16.0);
}

// Bytes of the rows of N numbers that a rank sends in a gather and in a sum.
std::int64_t gathered(std::int64_t rows, std::int64_t width, std::int64_t size) {
  const int R = world().ranks(), r = world().rank();
  return (part_begin(rows, r + 1, R) - part_begin(rows, r, R)) * (R - 1) * width * size;
}
std::int64_t summed(std::int64_t rows, std::int64_t width, std::int64_t size) {
  const int R = world().ranks(), r = world().rank();
  return (rows - part_begin(rows, r + 1, R) + part_begin(rows, r, R)) * width * size;
}

// The numbers of docs/parallel.md: two gathers and a sum backward, one of each forward, for a
// mixer, a dense MLP and a shared expert.
TEST(TensorTraffic, IsWhatThePageSays) {
  ModelConfig config = config_of_ranks(2);
  config.mtp_modules = 0;
  const int T = 33, D = config.width, E = config.layer.experts.experts;
  const test::TestBatch batch({T}, config.vocabulary, 5);
  const ProcessGrid grid = tensor_grid();
  test::ModelUnderTest<double> fixture(config, 1, grid);
  const auto before = grid.tensor.traffic().kinds;
  fixture.loss(batch, true);
  const auto& after = grid.tensor.traffic().kinds;
  const auto old = before.find("exchange");
  const std::int64_t sent =
      after.at("exchange").bytes - (old == before.end() ? 0 : old->second.bytes);
  const std::int64_t half = 3 * gathered(T, D, 8) + 2 * summed(T, D, 8);
  const std::int64_t factors = 2 * gathered(T, 1, 8) + summed(T, 1, 8);  // of a shared expert
  const std::int64_t embedding = summed(T, D, 8) + gathered(T, D, 8);
  const std::int64_t head = gathered(T, D, 8) + summed(T, D, 8) + (world().ranks() - 1) * T * 3 * 8;
  std::int64_t statistics = 0;
  for (const auto& [count, size] : {std::pair{2 * E, 4}, {2 * E, 8}, {2, 8}}) {
    statistics += summed(count, 1, size) + gathered(count, 1, size);
  }
  EXPECT_EQ(sent, 6 * half + 2 * factors + embedding + head + statistics);
}

// All that is kept for backward is divided.
TEST(TensorMemory, FallsWithTheDegree) {
  ModelConfig config = config_of_ranks(4);
  config.mixers.assign(12, Mixer::delta_net);
  config.mlps.assign(12, Mlp::dense);
  config.mtp_modules = 0;
  const MicrobatchShape shape{512, 1, 1};
  std::vector<std::int64_t> saved, parameters;
  for (const int tensor : {1, 2, 4}) {
    ParameterTable table;
    const Model<float> model(config, ProcessGrid(Degrees{.tensor = tensor}), table);
    Arena plan;
    model.reserve_saved(plan, shape);
    saved.push_back(plan.peak());
    parameters.push_back(table.local_elements());
  }
  const double padding = 256.0 * 12 * 20;  // every tensor of every layer begins at such a place
  EXPECT_NEAR(static_cast<double>(saved[1]), saved[0] / 2.0, padding);
  EXPECT_NEAR(static_cast<double>(saved[2]), saved[0] / 4.0, padding);
  EXPECT_LT(parameters[2], 0.3 * static_cast<double>(parameters[0]));
}

TEST(TensorRefuses, WhatItCannotDivide) {
  const auto expect_refusal = [](const ModelConfig& config, const std::string& message) {
    ParameterTable table;
    try {
      const Model<float> model(config, tensor_grid(), table);
      ADD_FAILURE() << "not refused: " << message;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
    }
  };
  const std::string degree = "the tensor degree " + std::to_string(world().ranks());
  ModelConfig config = config_of_ranks(1);
  config.layer.attention.heads = 3;
  expect_refusal(config, "attention: heads = 3, wanted a multiple of " + degree);
  config = config_of_ranks(3);
  config.layer.attention.heads = 12;
  expect_refusal(config, "key_value_heads = 3, wanted a multiple or a divisor of " + degree);
  config = config_of_ranks(1);
  config.layer.delta_net.key_heads = config.layer.delta_net.value_heads = 3;
  expect_refusal(config, "delta net: key_heads = 3, wanted a multiple of " + degree);
  config = config_of_ranks(1);
  config.layer.experts.capacity.rule = Capacity::Rule::position;
  expect_refusal(config, "wanted dropless or the tensor degree 1");
  config = config_of_ranks(1);
  config.vocabulary = 1;
  expect_refusal(config, "vocabulary = 1, wanted at least " + degree);
}

}  // namespace
}  // namespace qnext
