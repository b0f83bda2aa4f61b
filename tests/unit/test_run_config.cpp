// SPDX-License-Identifier: Apache-2.0
#include "app/run_config.hpp"
#include "core/require.hpp"
#include "io/deck.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace qnext {
namespace {

constexpr const char* small_deck = R"(
run: {name: test, steps: 10}
model:
  vocabulary: 256
  width: 32
  layers: 4
  attention: {heads: 4, key_value_heads: 2, head_width: 8}
  delta_net: {key_heads: 2, value_heads: 4, key_width: 8, value_width: 8}
  experts: {count: 8, per_token: 2, width: 16}
data: {train: text.txt, sequence: 64, batch: 8}
optimizer: {learning_rate: {peak: 0.001}}
)";

RunConfig read(const std::vector<std::string>& overrides) {
  return read_run_config(Deck::parse(small_deck, "small.yaml", overrides));
}

TEST(RunConfig, DefaultsAreThoseOfThePage) {
  const RunConfig c = read({});
  EXPECT_EQ(c.run.precision, DataType::float32);
  EXPECT_EQ(c.run.gradient_order, GradientOrder::tree);
  EXPECT_EQ(c.init.kind, InitSettings::Kind::random);
  EXPECT_EQ(c.init.member, 0u);
  EXPECT_EQ(c.model.layers(), 4);
  EXPECT_EQ(c.model.mixers[2], Mixer::delta_net);
  EXPECT_EQ(c.model.mixers[3], Mixer::attention);
  EXPECT_EQ(c.model.layer.attention.rotary_width, 2);
  EXPECT_EQ(c.model.layer.delta_net.conv_taps, 4);
  EXPECT_EQ(c.model.layer.delta_net.chunk, 64);
  EXPECT_EQ(c.model.layer.experts.capacity.rule, Capacity::Rule::dropless);
  EXPECT_EQ(c.model.balance.form, BalanceLossConfig::Form::none);
  EXPECT_EQ(c.model.mtp_modules, 0);
  EXPECT_EQ(c.data.microbatches(), 1);
  EXPECT_EQ(c.optimizer.learning_rate.kind, Schedule::Kind::cosine);
  EXPECT_EQ(c.optimizer.learning_rate.steps, 10);
  EXPECT_EQ(c.optimizer.adamw.beta2, 0.95);
  EXPECT_EQ(c.degrees.expert, 1);
  EXPECT_EQ(c.model.layer.experts.receive_factor, 2.0);
  EXPECT_EQ(c.output.folder, "out/test");
  EXPECT_EQ(c.output.resume, "latest");
}

TEST(RunConfig, FormsOfAKey) {
  EXPECT_EQ(read({"model.mixers=[attention, delta_net, attention, delta_net]"}).model.mixers[0],
            Mixer::attention);
  EXPECT_EQ(read({"model.dense_layers=[1]", "model.dense_width=48"}).model.mlps[1], Mlp::dense);
  EXPECT_EQ(read({"model.experts.capacity={rule: position, factor: 1.5}"})
                .model.layer.experts.capacity.factor,
            1.5);
  EXPECT_EQ(read({"output.checkpoint_every={minutes: 30}"}).output.checkpoint_minutes, 30.0);
  EXPECT_EQ(read({"data.train=[{path: a, weight: 3}, {path: b}]"}).data.train[0].weight, 3.0);
  EXPECT_EQ(read({"data.evaluate={path: c, every: 5}"}).data.evaluate[0].path, "c");
  EXPECT_EQ(read({"parallel.tensor=2"}).degrees.tensor, 2);
  EXPECT_EQ(read({"model.init_member=3"}).init.member, 3u);
}

TEST(RunConfig, ItsResolvedDeckGivesTheSameRun) {
  const Deck deck = Deck::parse(small_deck, "small.yaml", {"run.seed=7", "data.microbatch=2"});
  read_run_config(deck);
  const Deck again = Deck::parse(deck.resolved(), "resolved.yaml");
  const RunConfig c = read_run_config(again);
  EXPECT_EQ(c.run.seed, 7u);
  EXPECT_EQ(c.data.microbatches(), 4);
  EXPECT_EQ(again.resolved(), deck.resolved());
}

TEST(RunConfig, ExpertDegreeDividesExpertsAndRanks) {
  const auto degrees = [](const std::string& expert, std::optional<int> ranks) {
    return read_run_config(
               Deck::parse(small_deck, "small.yaml",
                           {"parallel.expert=" + expert, "data.batch=96", "data.microbatch=1"}),
               ranks)
        .degrees;
  };
  EXPECT_EQ(degrees("4", 4).expert, 4);
  EXPECT_EQ(degrees("2", 12).expert, 2);
  EXPECT_EQ(degrees("2", 12).data, 12);
  EXPECT_EQ(degrees("8", {}).data, 8) << "without a job: for plan and generate";
  try {
    degrees("8", 12);
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what())
                  .find("parallel.expert = 8: must divide the 8 experts and the 12 ranks of tensor "
                        "x context x data; "
                        "these do: 1, 2, 4"),
              std::string::npos)
        << error.what();
  }
}

struct Refused {
  std::vector<std::string> overrides;
  std::string message;
};

void PrintTo(const Refused& refused, std::ostream* out) {
  *out << refused.overrides.front();
}

class RunConfigRefuses : public testing::TestWithParam<Refused> {};

TEST_P(RunConfigRefuses, WithTheReason) {
  try {
    read(GetParam().overrides);
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find(GetParam().message), std::string::npos)
        << error.what();
  }
}

TEST(RunConfig, DataRanksAreTheRanksOfTheJob) {
  const Deck deck = Deck::parse(small_deck, "small.yaml", {"data.microbatch=2"});
  EXPECT_EQ(read_run_config(deck).degrees.data, 1);
  EXPECT_EQ(read_run_config(deck, 4).degrees.data, 4);
  EXPECT_EQ(read_run_config(deck, 4).microbatches_of_rank(), 1);
  const Deck two = Deck::parse(small_deck, "small.yaml", {"data.microbatch=2", "parallel.data=2"});
  EXPECT_EQ(read_run_config(two).degrees.data, 2) << "without a job: for plan and generate";
  const auto message = [](const Deck& refused, int ranks) {
    try {
      read_run_config(refused, ranks);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const auto expect = [](const std::string& found, const std::string& wanted) {
    EXPECT_NE(found.find(wanted), std::string::npos) << found;
  };
  expect(message(two, 4), "parallel.data = 2: the job has 4 ranks; data must be that, or 0");
  expect(message(deck, 8), "8 data ranks cannot share the 4 microbatches of a step");
  const Deck divided = Deck::parse(small_deck, "small.yaml",
                                   {"data.microbatch=2", "parallel.tensor=2", "parallel.data=4"});
  expect(message(divided, 4),
         "parallel.data = 4: the job has 4 ranks for 2 of tensor x context x pipeline; data must "
         "be 2, or 0");
  expect(message(divided, 3),
         "parallel.tensor = 2: the job has 3 ranks, which is no multiple of it");
}

INSTANTIATE_TEST_SUITE_P(
    Run, RunConfigRefuses,
    testing::Values(Refused{{"run.name=a/b"}, "run.name = a/b: must be a word without a slash"},
                    Refused{{"run.steps=-1"}, "run.steps = -1: must not be negative"},
                    Refused{{"run.precision=half"}, "run.precision = half"},
                    Refused{{"run.recompute=all"}, "run.recompute = all"},
                    Refused{{"run.gradient_order=heap"}, "run.gradient_order = heap"},
                    Refused{{"run.dropout=1.0"}, "run.dropout = 1.0: must be from 0 to below 1"},
                    Refused{{"run.wall_time=-1"}, "run.wall_time = -1: must not be negative"},
                    Refused{{"run.memory_limit=lots"},
                            "run.memory_limit = lots: must be bytes or, for example, 2 GiB"},
                    Refused{{"run.peak_flops=-1"}, "run.peak_flops = -1: must not be negative"},
                    Refused{{"run.step=5"}, "run.step: nothing reads this key"}));

INSTANTIATE_TEST_SUITE_P(
    Model, RunConfigRefuses,
    testing::Values(
        Refused{{"model.init=nowhere"}, "model.init = nowhere: is neither random nor a checkpoint"},
        Refused{{"model.init_member=-1"}, "model.init_member = -1"},
        Refused{{"model.init_deviation=0"}, "model.init_deviation = 0: must be positive"},
        Refused{{"model.vocabulary=0"}, "model.vocabulary = 0: must be positive"},
        Refused{{"model.width=-1"}, "model.width = -1: must be positive"},
        Refused{{"model.layers=0"}, "model.layers = 0: must be from 1 to 10000"},
        Refused{{"model.layers=10001"}, "model.layers = 10001: must be from 1 to 10000"},
        Refused{{"model.norm_epsilon=0"}, "model.norm_epsilon = 0: must be positive"},
        Refused{{"model.mixers=[attention]"}, "has 1 entries for 4 layers"},
        Refused{{"model.mixers=[a, a, a, a]"}, "each is delta_net or attention, not a"},
        Refused{{"model.mixers={full_attention_every: 0}"}, "must be positive"},
        Refused{{"model.dense_layers=[4]"}, "4 is no layer; they are 0 to 3"},
        Refused{{"model.dense_layers=[0]"}, "model.dense_width = 0 (default): must be positive"},
        Refused{{"model.attention.heads=3"}, "must be a multiple of key_value_heads, 2"},
        Refused{{"model.attention.key_value_heads=0"}, "must be positive"},
        Refused{{"model.attention.head_width=0"}, "must be positive"},
        Refused{{"model.attention.rotary_fraction=0"}, "must be above 0 and at most 1"},
        Refused{{"model.attention.rotary_fraction=0.4"}, "gives 3 rotated numbers of head_width 8"},
        Refused{{"model.attention.rotary_base=1"}, "must be above 1"},
        Refused{{"model.delta_net.value_heads=5"}, "must be a multiple of key_heads, 2"},
        Refused{{"model.delta_net.key_width=0"}, "must be positive"},
        Refused{{"model.delta_net.conv_taps=1"}, "conv_taps = 1: must be from 2 to 6"},
        Refused{{"model.delta_net.conv_taps=7"}, "conv_taps = 7: must be from 2 to 6"},
        Refused{{"model.delta_net.chunk=20"}, "must be 16, 32, 48 or 64"},
        Refused{{"model.delta_net.chunk=80"}, "must be 16, 32, 48 or 64"},
        Refused{{"model.experts.per_token=9"}, "must be at most count, 8"},
        Refused{{"model.experts.count=0"}, "must be positive"},
        Refused{{"model.experts.shared_width=-1"}, "must not be negative"},
        Refused{{"model.experts.capacity=drop"}, "model.experts.capacity = drop"},
        Refused{{"model.experts.capacity={rule: position, factor: 0}"}, "must be positive"},
        Refused{{"model.experts.balance_loss={coefficient: 0.1}"}, "needs a form"},
        Refused{{"model.experts.balance_loss={form: megatron, coefficient: -1}"},
                "must not be negative"},
        Refused{{"model.experts.router_z_loss=-1"}, "must not be negative"},
        Refused{{"model.experts.per_tokens=2"}, "did you mean per_token"},
        Refused{{"model.multi_token_prediction.modules=2"}, "must be 0 or 1"},
        Refused{{"model.multi_token_prediction.loss=-1"}, "must not be negative"}));

INSTANTIATE_TEST_SUITE_P(
    Data, RunConfigRefuses,
    testing::Values(Refused{{"data.train=[]"}, "names no data"},
                    Refused{{"data.train=[{path: a, weight: 0}]"}, "must be positive"},
                    Refused{{"data.sequence=0"}, "must be positive"},
                    Refused{{"data.batch=0"}, "must be positive"},
                    Refused{{"data.microbatch=0"}, "must be positive"},
                    Refused{{"data.microbatch=3"}, "must be a multiple of microbatch, 3"},
                    Refused{{"data.train=[{path: 'synthetic:copy', document: 0}]"},
                            "must be positive"},
                    Refused{{"data.train=[{path: 'synthetic:copy', tokens: 1}]"},
                            "must be at least one document"},
                    Refused{{"data.evaluate.last_fraction=1"}, "must be from 0 to below 1"},
                    Refused{{"data.evaluate.every=-1"}, "must not be negative"}));

INSTANTIATE_TEST_SUITE_P(
    Optimizer, RunConfigRefuses,
    testing::Values(Refused{{"optimizer.learning_rate.peak=0"}, "must be positive"},
                    Refused{{"optimizer.learning_rate.schedule=linear"}, "linear"},
                    Refused{{"optimizer.learning_rate.warmup=11"},
                            "must be from 0 to the steps of the schedule"},
                    Refused{{"optimizer.learning_rate.steps=-1"}, "must not be negative"},
                    Refused{{"optimizer.learning_rate.schedule=warmup_stable_decay",
                             "optimizer.learning_rate.decay=11"},
                            "must be from 0 to steps - warmup, 10"},
                    Refused{{"optimizer.learning_rate.final_fraction=2"}, "must be from 0 to 1"},
                    Refused{{"optimizer.betas=[0.9]"}, "has two entries"},
                    Refused{{"optimizer.betas=[0.9, 1.0]"}, "each must be from 0 to below 1"},
                    Refused{{"optimizer.epsilon=0"}, "must be positive"},
                    Refused{{"optimizer.weight_decay=-1"}, "must not be negative"},
                    Refused{{"optimizer.clip=-1"}, "must not be negative"},
                    Refused{{"optimizer.on_bad_number=ignore"}, "ignore"},
                    Refused{{"optimizer.spike.action=jump"}, "jump"},
                    Refused{{"optimizer.spike.factor=1"}, "must be above 1"},
                    Refused{{"optimizer.spike.window=0"}, "must be positive"}));

INSTANTIATE_TEST_SUITE_P(
    Tensor, RunConfigRefuses,
    testing::Values(
        Refused{{"parallel.tensor=0"}, "must be positive"},
        Refused{{"parallel.tensor=3"},
                "attention.heads, 4, is no multiple of it; what divides this model: "
                "1, 2"},
        Refused{{"parallel.tensor=4"}, "delta_net.key_heads, 2, is no multiple of it"},
        Refused{
            {"parallel.tensor=2", "model.attention.heads=12", "model.attention.key_value_heads=3"},
            "attention.key_value_heads, 3, is no multiple and no divisor of it"},
        Refused{{"parallel.tensor=2", "model.vocabulary=1"}, "model.vocabulary, 1, is less"},
        Refused{{"parallel.tensor=2", "model.dense_layers=[1]", "model.dense_width=1"},
                "dense_width, 1, is less"},
        Refused{{"parallel.tensor=2", "model.experts.shared_width=1"},
                "experts.shared_width, 1, is less"},
        Refused{{"parallel.tensor=2", "data.sequence=1"}, "data.sequence, 1, is less"}));

INSTANTIATE_TEST_SUITE_P(
    Output, RunConfigRefuses,
    testing::Values(
        Refused{{"parallel.context=3"},
                "context = 3: data.sequence, 64, is no multiple of it; these do: 1, 2, "
                "4, 8, 16"},
        Refused{{"parallel.context=64"},
                "a rank would hold 1 tokens of a sequence, less than "
                "delta_net.conv_taps - 1, 3"},
        Refused{{"parallel.context=0"}, "context = 0: must be positive"},
        Refused{{"parallel.pipeline=0"}, "must be from 1 to 5: every stage but"},
        Refused{{"parallel.pipeline=6"}, "must be from 1 to 5: every stage but"},
        Refused{{"parallel.chunks=2"}, "must be 1 without a pipeline"},
        Refused{{"parallel.pipeline=2", "parallel.chunks=3"},
                "must be from 1 to 2: every piece but the last has a layer, and there "
                "are 4 for 2 stages"},
        Refused{{"parallel.pipeline=2", "parallel.chunks=2"},
                "must be 1 where a data rank has 1 microbatches of a step: several "
                "chunks want at least as many as there are stages, 2"},
        Refused{{"parallel.pipeline=2", "parallel.stage_layers=[4]"},
                "has 1 entries for 2 stages of 1 chunks; these balance the stages: ["},
        Refused{{"parallel.pipeline=2", "parallel.stage_layers=[0, 4]"},
                "each is positive, the last one may be 0"},
        Refused{{"parallel.pipeline=2", "parallel.stage_layers=[2, 3]"},
                "adds up to 5 of 4 layers"},
        Refused{{"parallel.expert=3"},
                "expert = 3: must divide the 8 experts; these do: 1, 2, 4, 8"},
        Refused{{"parallel.expert=0"}, "must divide the 8 experts"},
        Refused{{"parallel.expert=2"}, "2 data ranks cannot share the 1 microbatches"},
        Refused{{"model.experts.count=2147483647", "parallel.expert=5"},
                "expert = 5: must divide the 2147483647 experts; these do: 1"},
        Refused{{"parallel.receive_factor=0.9"}, "must be at least 1"},
        Refused{{"parallel.data=-1"}, "must not be negative"},
        Refused{{"parallel.tensor=2", "parallel.data=2147483647"},
                "2 x 1 x 1 x 2147483647 ranks of tensor x context x pipeline x data are above "
                "16777216"},
        Refused{{"parallel.data=3", "data.microbatch=2"},
                "3 data ranks cannot share the 4 microbatches of a step (data.batch 8 "
                "/ data.microbatch 2) evenly; these can: 1, 2, 4"},
        Refused{{"parallel.bucket=0"},
                "parallel.bucket = 0: must be positive bytes, for example 25 MiB"},
        Refused{{"parallel.bucket=many"}, "parallel.bucket = many: must be positive bytes"},
        Refused{{"parallel.zero=0"}, "parallel.zero = 0: must be 1 or 2: data ranks share what"},
        Refused{{"parallel.zero=3"}, "parallel.zero = 3: must be 1 or 2"},
        Refused{{"parallel.device_messages=maybe"}, "maybe"},
        Refused{{"parallel.watchdog=-1"}, "must not be negative"},
        Refused{{"output.folder=\"\""}, "output.folder = : must name a folder"},
        Refused{{"output.log_every=0"}, "must be positive"},
        Refused{{"output.checkpoint_every=-1"}, "must not be negative"},
        Refused{{"output.checkpoint_every={minutes: 0}"}, "must be positive"},
        Refused{{"output.keep=0"}, "must be positive"},
        Refused{{"output.resume=nowhere.h5"}, "is neither latest nor never nor a checkpoint"}));

}  // namespace
}  // namespace qnext
