// SPDX-License-Identifier: Apache-2.0
#include "app/memory_plan.hpp"
#include "io/deck.hpp"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace qnext {
namespace {

constexpr const char* deck = R"(
run: {name: test, steps: 10}
model:
  vocabulary: 256
  width: 32
  layers: 4
  mixers: {full_attention_every: 2}
  attention: {heads: 4, key_value_heads: 2, head_width: 8}
  delta_net: {key_heads: 2, value_heads: 4, key_width: 8, value_width: 16}
  experts: {count: 8, per_token: 2, width: 16}
data: {train: text.txt, sequence: 64, batch: 8, microbatch: 1}
optimizer: {learning_rate: {peak: 0.001}}
parallel: {pipeline: 2, stage_layers: [2, 2]}
)";

std::map<std::string, std::int64_t> last_stage(const std::vector<std::string>& overrides) {
  const ModelPlan plan =
      plan_model(read_run_config(Deck::parse(deck, "memory.yaml", overrides)), 1);
  std::map<std::string, std::int64_t> lines;
  for (const MemoryPlan::Line& line : plan.stages.at(1).lines) {
    lines[line.name] = line.bytes;
  }
  return lines;
}

// On the last stage the embedding stands in the place of a head of its own where the head is tied,
// and beside it where the module for multi-token prediction reads it: with optimizer states too.
TEST(MemoryPlan, CountsTheEmbeddingOnTheLastStage) {
  const std::string tied = "model.tied_head=true";
  const std::string module = "model.multi_token_prediction.modules=1";
  auto own = last_stage({}), shared = last_stage({tied});
  auto own_and_copy = last_stage({module}), copy = last_stage({module, tied});
  const std::int64_t numbers = 256 * 32;
  struct Kind {
    const char* line;
    int bytes;
  };
  for (const Kind& kind : {Kind{"weights", 4}, Kind{"gradients", 4}, Kind{"moments", 8}}) {
    ASSERT_GT(own[kind.line], 0) << kind.line;
    EXPECT_EQ(shared[kind.line], own[kind.line]) << kind.line;
    EXPECT_EQ(own_and_copy[kind.line] - copy[kind.line], kind.bytes * numbers) << kind.line;
  }
}

}  // namespace
}  // namespace qnext
