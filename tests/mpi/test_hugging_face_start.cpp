// SPDX-License-Identifier: Apache-2.0
//
// A run that starts from a Hugging Face folder has the same weights on any layout of the ranks.
#include "app/hugging_face_names.hpp"
#include "app/model_start.hpp"
#include "app/pipeline_cut.hpp"
#include "app/trained_model.hpp"
#include "tests/mpi/rank_case.hpp"
#include "tests/mpi/shared_folder.hpp"
#include "tests/safetensors_files.hpp"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::part_of;
using test::values_of;
using test::world;

// Heads, experts and layers for four ranks.
ModelConfig config_of(bool tied_head) {
  ModelConfig config = test::config_of_ranks(2);
  config.tied_head = tied_head;
  config.layer.experts.experts = 8;
  return config;
}

// All tensors of a model in one file, in float, which holds numbers of bf16 as they are.
void write_folder(const std::string& folder, const ParameterTable& table, ExpertLayout layout) {
  test::SafetensorsText text;
  for (const Parameter& row : table.rows()) {
    if (!row.alias_of.empty()) {
      continue;
    }
    for (const HuggingFaceTensor& tensor : hugging_face_tensors(row, layout)) {
      Shard shard = row.shard;
      shard.boxes = {tensor.box};
      const std::vector<double> values = part_of(shard, values_of(table, row));
      text.add(tensor.name, "F32", fmt::format("[{}]", fmt::join(tensor.extents, ", ")),
               std::vector<float>(values.begin(), values.end()));
    }
  }
  test::write_bytes(folder + "/model.safetensors", text.bytes());
}

std::vector<Degrees> layouts() {
  const std::vector<Degrees> all{
      {.tensor = 2},
      {.context = 2},
      {.pipeline = 2},
      {.expert = 2, .data = 2},
      {.tensor = 2, .expert = 2},
      {.tensor = 4},
      {.pipeline = 4},
      {.expert = 4, .data = 4},
      {.tensor = 2, .pipeline = 2},
      {.tensor = 2, .context = 2, .expert = 4},
      {.pipeline = 2, .expert = 2, .data = 2},
  };
  std::vector<Degrees> some;
  std::copy_if(all.begin(), all.end(), std::back_inserter(some),
               [](const Degrees& d) { return d.ranks() == world().ranks(); });
  return some;
}

template <class Storage>
void expect_the_weights_of_one_rank(bool tied_head, ExpertLayout layout) {
  const test::SharedFolder folder;
  const ModelConfig config = config_of(tied_head);
  TrainedModel<Storage> one(config, false);
  initialise(one.table, 3);
  if (world().first()) {
    write_folder(folder.path, one.table, layout);
  }
  world().barrier();
  InitSettings init;
  init.kind = InitSettings::Kind::hugging_face;
  init.path = folder.path;
  for (const Degrees& degrees : layouts()) {
    SCOPED_TRACE(testing::Message()
                 << "tensor " << degrees.tensor << " context " << degrees.context << " pipeline "
                 << degrees.pipeline << " expert " << degrees.expert);
    const ProcessGrid grid(degrees, world());
    const PipelineCut cut{degrees.pipeline, 1, balanced_cut(config, degrees.pipeline, 1, 16.0)};
    TrainedModel<Storage> mine(config, false, grid, cut.chunks_of(grid.place.pipeline));
    start_weights(init, 0, mine.table, world());
    std::vector<std::int64_t> counted{0};
    for (const Parameter& row : mine.table.rows()) {
      const Parameter* const whole = one.table.find(row.name);
      ASSERT_NE(whole, nullptr) << row.name;
      EXPECT_EQ(values_of(mine.table, row), part_of(row.shard, values_of(one.table, *whole)))
          << row.name;
      counted[0] += row.alias_of.empty() && grid.counts(row) ? row.elements() : 0;
    }
    world().sum(counted);
    EXPECT_EQ(counted[0], one.table.global_elements()) << "each number on one rank that counts it";
  }
}

TEST(HuggingFaceStart, HasTheWeightsOfOneRank) {
  expect_the_weights_of_one_rank<float>(false, ExpertLayout::one_by_one);
}
TEST(HuggingFaceStart, HasTheWeightsOfOneRankInBf16) {
  expect_the_weights_of_one_rank<bf16>(false, ExpertLayout::stacked);
}
TEST(HuggingFaceStart, HasTheEmbeddingOnBothEndsWhereTheHeadIsTied) {
  expect_the_weights_of_one_rank<float>(true, ExpertLayout::one_by_one);
}

}  // namespace
}  // namespace qnext
