// SPDX-License-Identifier: Apache-2.0
#include "app/layouts.hpp"
#include "app/pipeline_schedule.hpp"
#include "io/deck.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace qnext {
namespace {

// One key head, a prime number of tokens and seven microbatches: four ranks can be stages alone.
constexpr const char* deck = R"(
run: {name: test, steps: 10}
model:
  vocabulary: 256
  width: 32
  layers: 8
  mixers: {full_attention_every: 4}
  attention: {heads: 4, key_value_heads: 2, head_width: 8}
  delta_net: {key_heads: 1, value_heads: 2, key_width: 8, value_width: 16}
  experts: {count: 8, per_token: 2, width: 16}
data: {train: text.txt, sequence: 61, batch: 7, microbatch: 1}
optimizer: {learning_rate: {peak: 0.001}}
)";

RunConfig config_of(const std::vector<std::string>& overrides = {}) {
  return read_run_config(Deck::parse(deck, "layouts.yaml", overrides));
}

// Of four ranks, by their chunks.
std::vector<Layout> pipelines(const RunConfig& config, const Machine& machine) {
  auto layouts = find_layouts(config, 4, machine, 0, 1);
  for (const Layout& each : layouts) {
    EXPECT_EQ(each.degrees.pipeline, 4);
  }
  std::sort(layouts.begin(), layouts.end(),
            [](const Layout& a, const Layout& b) { return a.chunks < b.chunks; });
  return layouts;
}

// Stages wait half as long with twice the chunks, and are sent more.
TEST(Layouts, TryPipelinesInChunks) {
  const auto found = pipelines(config_of(), Machine::typical());
  ASSERT_EQ(found.size(), 2u) << "eight layers and the head in four or eight pieces";
  for (int i = 0; i < 2; ++i) {
    const Layout& each = found[i];
    EXPECT_EQ(each.chunks, 1 + i);
    EXPECT_DOUBLE_EQ(each.step.bubble, (each.step.arithmetic + each.step.messages) *
                                           bubble_share({4, each.chunks, 7}));
  }
  EXPECT_GT(found[1].step.messages, found[0].step.messages);
}

TEST(Layouts, TakeChunksWhereMessagesCostLess) {
  Machine machine = Machine::typical();
  const auto faster_first = [&] {
    const auto found = pipelines(config_of(), machine);
    return found.at(0).step.seconds() < found.at(1).step.seconds() ? found[0].chunks
                                                                   : found[1].chunks;
  };
  machine.latency = 1.0;
  EXPECT_EQ(faster_first(), 1);
  machine.latency = 0.0;
  machine.messages = 1e18;
  EXPECT_EQ(faster_first(), 2);
}

TEST(Layouts, WantAMicrobatchForEachStageOfSeveralChunks) {
  const RunConfig few = config_of({"data.batch=3"});
  EXPECT_EQ(pipelines(few, Machine::typical()).size(), 1u);
}

TEST(Layouts, OfARunAreThoseThatItTakes) {
  RunConfig config = config_of({"parallel=auto"});
  EXPECT_EQ(config.degrees.ranks(), 1) << "nothing is chosen yet";
  const Layout best = choose_layout(config, 4, 1).front();
  EXPECT_EQ(best.degrees.pipeline, 4);
  EXPECT_EQ(config.degrees.pipeline, best.degrees.pipeline);
  EXPECT_EQ(config.pipeline.chunks, best.chunks);
  EXPECT_EQ(static_cast<int>(config.pipeline.layers.size()), best.degrees.pipeline * best.chunks);
}

TEST(Layouts, AreRefusedWhereNoneDivides) {
  RunConfig config = config_of();
  EXPECT_EQ(test::message_of([&] { choose_layout(config, 11, 1); }),
            "no way to share out 11 ranks divides this model and its data");
}

// The rest of the section parallel holds for all of them.
TEST(Layouts, ShareTheOtherKeysOfTheDeck) {
  const auto memory = [](const std::vector<std::string>& overrides) {
    RunConfig config = config_of(overrides);
    return choose_layout(config, 7, 1).front().memory;
  };
  EXPECT_LT(memory({"parallel.bucket=1KiB"}), memory({}));
}

// layers/README.md: products of K V for a token and head that context ranks do beside the 12 of one
// rank, of which forward's go twice where it is computed again. In all else a rank has its share.
TEST(StepPrediction, CountsTheFurtherWalksOfContextRanks) {
  const Machine machine = Machine::typical();
  const auto arithmetic = [&](int context, const char* recompute) {
    RunConfig config = config_of({std::string("run.recompute=") + recompute, "data.sequence=64"});
    config.degrees.context = context;
    return predict_step(config, plan_model(config, 1), machine).arithmetic;
  };
  struct Walks {
    int context;
    const char* recompute;
    double units;
  };
  for (const Walks& each : {Walks{2, "none", 2 + 3}, Walks{4, "none", 4 + 3},
                            Walks{2, "block", 2 * 2 + 3}, Walks{4, "mixer", 2 * 4 + 3}}) {
    const double tokens = 7.0 * 64.0, layers = 6.0, heads = 2.0, K = 8.0, V = 16.0;
    const double walks = 2.0 * each.units * heads * K * V * layers * tokens / machine.delta_net;
    const double alone = arithmetic(1, each.recompute);
    EXPECT_NEAR(each.context * arithmetic(each.context, each.recompute), alone + walks,
                32.0 * 0x1p-52 * alone)
        << each.context << " context ranks, recompute " << each.recompute;
  }
}

}  // namespace
}  // namespace qnext
