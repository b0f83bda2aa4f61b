// SPDX-License-Identifier: Apache-2.0
#include "tests/model_support.hpp"
#include "tests/mpi/training.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace qnext {
namespace {

using test::world;

struct Case {
  std::string name = {};
  Degrees degrees = {};
  int chunks = 1;
  std::vector<int> stage_layers = {};
  int microbatches_of_rank = 2;
  bool tied_head = false;
  bool mtp = false;
  bool experts = true;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

RunConfig config_of(const Case& c, int zero) {
  RunConfig config;
  config.model = test::small_model_config();
  config.model.mixers = {Mixer::delta_net, Mixer::attention, Mixer::delta_net, Mixer::delta_net,
                         Mixer::attention};
  const Mlp mlp = c.experts ? Mlp::experts : Mlp::dense;
  config.model.mlps = {mlp, Mlp::dense, mlp, mlp, mlp};
  config.model.tied_head = c.tied_head;
  config.model.mtp_modules = c.mtp ? 1 : 0;
  config.mtp_loss = c.mtp ? 0.3 : 0.0;
  config.run.dropout = 0.1;
  config.data.sequence = 34;
  config.data.batch = c.microbatches_of_rank * c.degrees.data;
  config.data.microbatch = 1;
  config.degrees = c.degrees;
  config.pipeline = {c.degrees.pipeline, c.chunks,
                     c.stage_layers.empty() ? std::vector<int>{5} : c.stage_layers};
  config.zero = zero;
  config.bucket = zero == 2 ? 30001 : std::int64_t{25} << 20;
  return config;
}

std::vector<TokenBatch> batches_of(const RunConfig& config, std::int64_t step, int data_place) {
  std::vector<TokenBatch> batches;
  for (int m = 0; m < config.microbatches_of_rank(); ++m) {
    const int place = config.microbatch_of_step(data_place, m);
    batches.push_back(test::token_batch({21 - place, 1, 12 + place}, config.model.vocabulary,
                                        100 * step + place));
  }
  return batches;
}

// A model in training that keeps all gradients, or the part of its rank.
template <class Storage>
struct Training : test::Training<Storage> {
  using test::Training<Storage>::config;
  using test::Training<Storage>::grid;
  using test::Training<Storage>::trained;
  using test::Training<Storage>::step;

  Training(const Case& c, const ProcessGrid& grid, int zero)
      : test::Training<Storage>(config_of(c, zero), grid) {}

  StepNumbers run(std::int64_t number) {
    const StepNumbers numbers =
        step.compute_gradients(Exec{}, number, batches_of(config, number, grid.place.data));
    step.update(Exec{}, number, 0.01, numbers.gradients.global);
    return numbers;
  }

  std::vector<double> values(const Parameter& row) const {
    return row.type == DataType::float64 ? test::to_host(trained.table.template values<double>(row))
           : row.type == DataType::bf16  ? test::to_host(trained.table.template values<bf16>(row))
                                         : test::to_host(trained.table.template values<float>(row));
  }

  std::int64_t gradient_bytes() const {
    const std::byte* begin = nullptr;
    const std::byte* end = nullptr;
    for (const auto& group : trained.table.groups()) {
      const auto* const first = group.gradients.data();
      const auto* const last = first + group.gradients.extent(0);
      begin = begin == nullptr || first < begin ? first : begin;
      end = end == nullptr || last > end ? last : end;
    }
    return end - begin;
  }
};

// Losses, the norms of all tensors and the weights of three steps.
template <class Storage>
void expect_same_bits(const Case& c) {
  const ProcessGrid grid(c.degrees, world());
  Training<Storage> parts(c, grid, 2), whole(c, grid, 1);
  for (std::int64_t number = 1; number <= 3; ++number) {
    SCOPED_TRACE(testing::Message() << "step " << number);
    const StepNumbers found = parts.run(number), wanted = whole.run(number);
    EXPECT_EQ(found.loss, wanted.loss);
    EXPECT_EQ(found.loss_mtp, wanted.loss_mtp);
    EXPECT_EQ(found.loss_balance, wanted.loss_balance);
    EXPECT_EQ(found.gradients.squares, wanted.gradients.squares);
    EXPECT_EQ(found.gradients.global, wanted.gradients.global);
  }
  parts.step.wait_for_weights();
  whole.step.wait_for_weights();
  for (const Parameter& row : parts.trained.table.rows()) {
    ASSERT_EQ(parts.values(row), whole.values(*whole.trained.table.find(row.name))) << row.name;
  }
}

class PartGradientsOf : public testing::TestWithParam<Case> {};

TEST_P(PartGradientsOf, HaveTheBitsOfWholeOnesInDouble) {
  expect_same_bits<double>(GetParam());
}
TEST_P(PartGradientsOf, HaveTheBitsOfWholeOnesInFloat) {
  expect_same_bits<float>(GetParam());
}
TEST_P(PartGradientsOf, HaveTheBitsOfWholeOnesInBf16) {
  expect_same_bits<bf16>(GetParam());
}

// One, two, four and, of a rank alone, any number of microbatches of a rank; stages beside the data
// ranks, and tensor ranks without experts, whose tree has these above the data ranks.
std::vector<Case> cases() {
  const int ranks = world().ranks();
  std::vector<Case> all{
      {.name = "One", .degrees = {.data = ranks}, .microbatches_of_rank = 1},
      {.name = "Two", .degrees = {.data = ranks}, .mtp = true},
      {.name = "Four", .degrees = {.data = ranks}, .microbatches_of_rank = 4, .tied_head = true}};
  if (ranks == 1) {
    all.push_back({.name = "Three", .degrees = {}, .microbatches_of_rank = 3});
  }
  if (ranks == 4) {
    all.push_back({.name = "WithStages",
                   .degrees = {.pipeline = 2, .data = 2},
                   .chunks = 2,
                   .stage_layers = {1, 2, 1, 1},
                   .microbatches_of_rank = 4});
    all.push_back({.name = "WithTensor", .degrees = {.tensor = 2, .data = 2}, .experts = false});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(Cases, PartGradientsOf, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

// The window is smaller than all gradients, and the table has no other memory for them.
TEST(PartGradients, HaveAWindowOfFewLayers) {
  const Case c{.name = "", .degrees = {.data = world().ranks()}};
  const ProcessGrid grid(c.degrees, world());
  const Training<float> parts(c, grid, 2), whole(c, grid, 1);
  std::int64_t all = 0;
  for (const auto& group : whole.trained.table.groups()) {
    all += static_cast<std::int64_t>(group.gradients.extent(0));
  }
  const GradientWindow window(parts.trained.table, parts.trained.model.backward_pieces());
  EXPECT_EQ(parts.gradient_bytes(), window.bytes);
  EXPECT_LT(window.bytes, all);
}

}  // namespace
}  // namespace qnext
