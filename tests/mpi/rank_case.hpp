// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/microbatch.hpp"
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
#include <vector>

/// A step of a model on several ranks held against the same step on one.
namespace qnext::test {

// Heads for up to four ranks; the vocabulary, the widths of the MLPs and the tokens are no multiple
// of four.
inline ModelConfig config_of_ranks(int key_value_heads) {
  ModelConfig config = small_model_config();
  config.layer.delta_net.key_heads = 4;
  config.layer.delta_net.value_heads = 8;
  config.layer.attention.heads = 8;
  config.layer.attention.key_value_heads = key_value_heads;
  config.layer.dense.width = 22;
  config.layer.experts.shared_width = 9;
  return config;
}

/// A model and a microbatch that several ranks share.
struct RankCase {
  std::string name;
  int key_value_heads;
  bool tied_head;
  BalanceLossConfig::Form balance;
  Recompute recompute;
  double dropout;
  std::vector<int> lengths;  // of the documents
  int sequences;
  Capacity capacity = {};

  ModelConfig config() const {
    ModelConfig config = config_of_ranks(key_value_heads);
    config.tied_head = tied_head;
    config.balance.form = balance;
    config.recompute = recompute;
    config.layer.experts.capacity = capacity;
    return config;
  }
  TestBatch batch() const { return {lengths, config().vocabulary, 5, sequences}; }
  Dropout mask() const { return {dropout, 77}; }
};

inline void PrintTo(const RankCase& c, std::ostream* out) {
  *out << c.name;
}

// What this rank holds of a global tensor.
inline std::vector<double> part_of(const Shard& shard, const std::vector<double>& global) {
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

inline std::vector<double> values_of(const ParameterTable& table, const Parameter& row) {
  switch (row.type) {
    case DataType::bf16:
      return to_host(table.values<bf16>(row));
    case DataType::float32:
      return to_host(table.values<float>(row));
    case DataType::float64:
      return to_host(table.values<double>(row));
  }
  return {};
}

inline std::vector<double> gradient_of(const ParameterTable& table, const Parameter& row) {
  return row.type == DataType::float64 ? to_host(table.gradients<double>(row))
                                       : to_host(table.gradients<float>(row));
}

// One pass: the losses, the gradients and, behind a step of the optimizer, the parameters.
struct RankResult {
  std::vector<double> losses;
  std::vector<std::vector<double>> gradients;  // in table order
  std::vector<std::vector<double>> updated;
};

constexpr double learning_rate = 0.1;

// An epsilon of 1 makes the step a smooth function of the gradient, with a slope of at most
// learning_rate: without it the first step is the sign of the gradient.
template <class Storage>
RankResult run(ModelUnderTest<Storage>& fixture, const RankCase& c, const ProcessGrid& grid) {
  RankResult result;
  fixture.loss(c.batch().on(grid), true, c.mask());
  sum_gradients(grid, fixture.table);
  for (const auto& sum : {fixture.sums.cross_entropy, fixture.sums.mtp}) {
    result.losses.push_back(0.0);
    for (const double of_piece : grid.context.all_gather(to_host(sum))) {
      result.losses.back() += of_piece;
    }
  }
  for (const auto& sum : {fixture.sums.balance, fixture.sums.router_z}) {
    result.losses.push_back(to_host(sum)[0]);
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

// With a member of an ensemble every weight is one rounding away.
template <class Storage>
RankResult run_alone(const RankCase& c, int member = 0) {
  ModelUnderTest<Storage> fixture(c.config());
  if (member > 0) {
    move_by_one_rounding(fixture.table, member);
  }
  return run(fixture, c, ProcessGrid{});
}

inline double largest(const std::vector<double>& values) {
  double most = 0.0;
  for (const double value : values) {
    most = std::max(most, std::abs(value));
  }
  return most;
}

inline double difference(const std::vector<double>& a, const std::vector<double>& b) {
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
  Bounds(const RankCase& c, const RankResult& one) {
    for (int member = 1; member <= 3; ++member) {
      const RankResult other = run_alone<Storage>(c, member);
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
    return learning_rate * of_gradient(i) + 4.0 * epsilon_of<Storage>() * size;
  }

 private:
  static constexpr double terms = 64.0;

  static void widen(double& bound, const std::vector<double>& one,
                    const std::vector<double>& other) {
    bound = std::max(bound, difference(one, other) + epsilon_of<Storage>() * largest(one));
  }

  std::vector<double> losses_, gradients_;
};

template <class Storage>
void expect_equal_to_one_rank(const RankCase& c, const ProcessGrid& grid) {
  const RankResult one = run_alone<Storage>(c);
  const Bounds<Storage> bounds(c, one);
  ModelUnderTest<Storage> fixture(c.config(), 1, grid);
  const RankResult mine = run(fixture, c, grid);
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

// In bf16 a choice of experts may change with a rounding, and takes its tokens with it. The losses
// differ as two one-rank runs do whose weights are a rounding apart, and all gradients together
// point the same way: roundings of 2^-8 in some hundred places add up to an angle of 2^-8 sqrt(100)
// = 0.04; half a radian says that nothing is missing.
inline void expect_direction_of_one_rank(const RankCase& c, const ProcessGrid& grid) {
  const RankResult one = run_alone<bf16>(c);
  const Bounds<bf16> bounds(c, one);
  ModelUnderTest<bf16> fixture(c.config(), 1, grid);
  const RankResult mine = run(fixture, c, grid);
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

}  // namespace qnext::test
