// SPDX-License-Identifier: Apache-2.0
#include "app/fine_tune_section.hpp"
#include "app/pipeline_cut.hpp"
#include "tests/mpi/rank_case.hpp"
#include "tests/mpi/shared_tensors.hpp"
#include "tests/mpi/training.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

/// Two steps of training on many layouts of the ranks against the same steps on one rank: losses,
/// every gradient, the gradient norm and every weight behind the optimizer's step.
namespace qnext {
namespace {

using test::world;
using Form = BalanceLossConfig::Form;
using Scope = BalanceLossConfig::Scope;

// What is trained, whatever the layout.
struct Setting {
  std::string name;
  BalanceLossConfig balance;
  bool tied_head = false;
  Recompute recompute = Recompute::none;
  double dropout = 0.0;
  Capacity capacity = {};
  GradientOrder order = GradientOrder::tree;
  bool adapters = false;
};

const std::vector<Setting>& settings() {
  static const std::vector<Setting> all{
      {.name = "LayerByLayer",
       .balance = {Form::maxtext, Scope::microbatch, 0.05, 0.001},
       .tied_head = true,
       .dropout = 0.1},
      {.name = "AllLayers",
       .balance = {Form::huggingface, Scope::microbatch, 0.05, 0.001},
       .recompute = Recompute::mixer,
       .capacity = {Capacity::Rule::position, 0.7},
       .order = GradientOrder::running},
      {.name = "EachSequence",
       .balance = {Form::megatron, Scope::sequence, 0.05, 0.0},
       .recompute = Recompute::block,
       .capacity = {Capacity::Rule::probability, 0.7}},
      {.name = "StepBefore", .balance = {Form::megatron, Scope::global, 0.05, 0.001}},
      {.name = "Adapters",
       .balance = {Form::maxtext, Scope::microbatch, 0.05, 0.001},
       .recompute = Recompute::block,
       .adapters = true}};
  return all;
}

struct Layout {
  Degrees degrees;
  int chunks = 1;

  // Nothing but whole microbatches is divided, in the tree of one rank.
  bool has_the_bits_of_one(const Setting& setting) const {
    return degrees.data == degrees.ranks() && degrees.expert == 1 &&
           setting.order == GradientOrder::tree;
  }
};

void PrintTo(const Layout& layout, std::ostream* out) {
  const Degrees& d = layout.degrees;
  *out << d.tensor << " x " << d.context << " x " << d.pipeline << " x " << d.data;
}
void PrintTo(const Setting& setting, std::ostream* out) {
  *out << setting.name;
}

constexpr int microbatches = 8;
constexpr int sequence = 16;

// Seven layers for eight stages, heads and experts for eight ranks; the vocabulary and the widths
// of the MLPs are no multiples of anything. An epsilon of 1 makes the optimizer's step a smooth
// function of the gradient, with a slope of at most the learning rate.
RunConfig config_of(const Setting& setting, const Layout& layout) {
  RunConfig config;
  ModelConfig& model = config.model;
  model = test::small_model_config();
  const auto d = Mixer::delta_net, a = Mixer::attention;
  model.mixers = {d, a, d, d, a, d, a};
  model.mlps.assign(7, Mlp::experts);
  model.mlps[1] = model.mlps[4] = Mlp::dense;
  model.layer.delta_net.key_heads = 8;
  model.layer.delta_net.value_heads = 16;
  model.layer.delta_net.value_width = 8;
  model.layer.attention.heads = 8;
  model.layer.attention.head_width = 8;
  model.layer.experts.experts = 8;
  model.layer.experts.shared_width = 9;
  model.layer.experts.capacity = setting.capacity;
  model.tied_head = setting.tied_head;
  model.balance = setting.balance;
  model.recompute = setting.recompute;
  if (setting.adapters) {
    model.adapters = {.rank = 3, .alpha = 5.0, .targets = {}};
    for (const std::string& projection : adapter_projections(model)) {
      model.adapters.targets.push_back(projection);
    }
  }
  config.mtp_loss = 0.3;
  config.run.dropout = setting.dropout;
  config.run.gradient_order = setting.order;
  config.data.sequence = sequence;
  config.data.microbatch = 2;
  config.data.batch = 2 * microbatches;
  config.optimizer.adamw.epsilon = 1.0;
  config.optimizer.adamw.clip = 0.0;
  config.degrees = layout.degrees;
  config.pipeline = {layout.degrees.pipeline, layout.chunks,
                     balanced_cut(model, layout.degrees.pipeline, layout.chunks, sequence)};
  return config;
}

// Two sequences a microbatch, with a border of documents at another place in each of them and a
// document of one token.
std::vector<TokenBatch> batches_of(const RunConfig& config, std::int64_t step, int data_place) {
  std::vector<TokenBatch> batches;
  for (int m = 0; m < config.microbatches_of_rank(); ++m) {
    const int place = data_place * config.microbatches_of_rank() + m;
    batches.push_back(test::token_batch({9 - place, 7 + place, 1, 15}, config.model.vocabulary,
                                        100 * step + place, 2));
  }
  return batches;
}

struct Step {
  test::Tensors numbers, gradients, weights;

  const std::vector<double>& losses() const { return numbers.at("losses"); }
  double norm() const { return numbers.at("norm").front(); }
  const std::vector<double>& counts() const { return numbers.at("counts"); }
};

// Factors B that are not zero, so that A has gradients from the first step on.
void start_adapters(test::Training<double>& run) {
  const ParameterTable& table = run.trained.table;
  for (const Parameter& row : table.rows()) {
    if (row.name.ends_with("lora_B.weight")) {
      const auto whole = test::uniform(row.shard.global_elements(), -0.3, 0.3, row.name.size());
      Kokkos::deep_copy(table.values<double>(row),
                        test::to_device(test::part_of(row.shard, whole), row.elements()));
    }
  }
}

constexpr double learning_rate = 0.1;

std::vector<Step> train(test::Training<double>& run) {
  start_adapters(run);
  std::vector<Step> steps(2);
  for (int s = 1; s <= 2; ++s) {
    Step& step = steps[s - 1];
    const StepNumbers n = run.gradients(s, batches_of(run.config, s, run.grid.place.data));
    step.numbers = {
        {"losses", {n.loss, n.loss_mtp, n.loss_balance}},
        {"norm", {n.gradients.global}},
        {"counts", {static_cast<double>(n.tokens), n.load.least, n.load.most, n.load.dropped}}};
    const ParameterTable& table = run.trained.table;
    for (const Parameter& row : table.rows()) {
      if (!row.frozen) {
        step.gradients[row.name] = test::gradient_of(table, row);
      }
    }
    run.update(s, learning_rate, n);
    for (const Parameter& row : table.rows()) {
      step.weights[row.name] = test::values_of(table, row);
    }
  }
  return steps;
}

// The steps of one rank, and how far those of a layout may be from them. A sum of n terms in
// another order is the sum of the same terms, each with an error of at most n eps: as if every
// weight had one of n eps. What one eps in all weights does to a number is the largest of what it
// does in three runs of one rank, plus one eps of the number. n = 256 is the number of tokens of a
// step, which no width is above. In the second step it does so twice: through the weights that the
// first one left, and by itself.
struct Judge {
  static constexpr double terms = 256.0;
  static constexpr int members = 4;
  static constexpr double epsilon = test::epsilon_of<double>();

  struct Bounds {
    std::vector<double> losses = std::vector<double>(3, 0.0);
    std::map<std::string, double> gradients;
    double norm = 0.0;
  };
  std::vector<Step> steps;
  std::vector<Bounds> bounds = std::vector<Bounds>(2);

  explicit Judge(const Setting& setting) {
    const std::vector<std::vector<Step>> runs = alone(setting);
    steps = runs[0];
    for (int member = 1; member < members; ++member) {
      for (int s = 0; s < 2; ++s) {
        widen(bounds[s], steps[s], runs[member][s], (s + 1) * terms);
      }
    }
    for (int s = 0; s < 2; ++s) {
      double squares = 0.0;
      for (const auto& [name, bound] : bounds[s].gradients) {
        squares += steps[s].gradients.at(name).size() * bound * bound;
      }
      bounds[s].norm = std::sqrt(squares) + terms * epsilon * steps[s].norm();
    }
  }

  /// Behind step s: what the gradients so far may be off, and four roundings of each update.
  double bound_of_weight(const std::string& name, int s) const {
    double bound = 4.0 * (s + 1) * epsilon * test::largest(steps[s].weights.at(name));
    for (int before = 0; before <= s; ++before) {
      bound += learning_rate * bounds[before].gradients.at(name);
    }
    return bound;
  }

 private:
  // The members of the ensemble, the first one as it is. The ranks share them out.
  static std::vector<std::vector<Step>> alone(const Setting& setting) {
    std::vector<std::vector<Step>> runs(members, std::vector<Step>(2));
    const auto rank_of = [](int member) { return member % world().ranks(); };
    for (int member = 0; member < members; ++member) {
      if (rank_of(member) == world().rank()) {
        RunConfig config = config_of(setting, {});
        config.init.member = member;
        const ProcessGrid grid;
        test::Training<double> run(config, grid);
        runs[member] = train(run);
      }
    }
    for (int member = 0; member < members; ++member) {
      for (Step& step : runs[member]) {
        for (test::Tensors* each : {&step.numbers, &step.gradients, &step.weights}) {
          test::share(*each, rank_of(member));
        }
      }
    }
    return runs;
  }

  static void widen(Bounds& bounds, const Step& one, const Step& other, double times) {
    const auto &mine = one.losses(), &its = other.losses();
    for (std::size_t i = 0; i < mine.size(); ++i) {
      const double bound = std::abs(mine[i] - its[i]) + epsilon * std::abs(mine[i]);
      bounds.losses[i] = std::max(bounds.losses[i], times * bound);
    }
    for (const auto& [name, gradient] : one.gradients) {
      const double bound =
          test::difference(gradient, other.gradients.at(name)) + epsilon * test::largest(gradient);
      bounds.gradients[name] = std::max(bounds.gradients[name], times * bound);
    }
  }
};

// Made once for all layouts.
const Judge& judge_of(const Setting& setting) {
  static std::map<std::string, Judge> judges;
  return judges.try_emplace(setting.name, setting).first->second;
}

using Case = std::tuple<Layout, Setting>;

class Layouts : public testing::TestWithParam<Case> {};

TEST_P(Layouts, TakeTheStepsOfOneRank) {
  const auto& [layout, setting] = GetParam();
  const ProcessGrid grid(layout.degrees, world());
  test::Training<double> run(config_of(setting, layout), grid);
  const Judge& judge = judge_of(setting);
  const double share = layout.has_the_bits_of_one(setting) ? 0.0 : 1.0;
  const std::vector<Step> mine = train(run);
  for (int s = 0; s < 2; ++s) {
    SCOPED_TRACE(testing::Message() << "step " << s + 1);
    const Step& one = judge.steps[s];
    const auto& bounds = judge.bounds[s];
    for (int i = 0; i < 3; ++i) {
      EXPECT_GT(std::abs(one.losses()[i]), 0.0);
      EXPECT_NEAR(mine[s].losses()[i], one.losses()[i], share * bounds.losses[i]) << "loss " << i;
    }
    EXPECT_NEAR(mine[s].norm(), one.norm(), share * bounds.norm);
    EXPECT_EQ(mine[s].counts(), one.counts()) << "tokens, loads, dropped choices";
    for (const Parameter& row : run.trained.table.rows()) {
      if (row.frozen) {
        EXPECT_EQ(mine[s].weights.at(row.name), test::part_of(row.shard, one.weights.at(row.name)))
            << row.name;
        continue;
      }
      const std::vector<double>& whole = one.gradients.at(row.name);
      const double bound = share * bounds.gradients.at(row.name);
      EXPECT_LT(bound, test::largest(whole) / (2.0 * world().ranks()))
          << row.name << ": the bound would hide the share of one rank";
      EXPECT_LE(test::difference(mine[s].gradients.at(row.name), test::part_of(row.shard, whole)),
                bound)
          << row.name;
      const std::vector<double>& weight = one.weights.at(row.name);
      EXPECT_LE(test::difference(mine[s].weights.at(row.name), test::part_of(row.shard, weight)),
                share * judge.bound_of_weight(row.name, s))
          << row.name;
    }
  }
}

// Every degree alone, every pair, three and four together on 2, 4 and 8 ranks, all five on 16.
std::vector<Layout> layouts_of(int ranks) {
  std::vector<Layout> all{
      {{.tensor = 2}},
      {{.context = 2}},
      {{.pipeline = 2}, 2},
      {{.expert = 2, .data = 2}},
      {{.data = 2}},
      {{.tensor = 2, .expert = 2}},
      {{.context = 2, .expert = 2}},

      {{.tensor = 4}},
      {{.context = 4}},
      {{.pipeline = 4}},
      {{.expert = 4, .data = 4}},
      {{.data = 4}},
      {{.tensor = 2, .context = 2}},
      {{.tensor = 2, .pipeline = 2}, 2},
      {{.tensor = 2, .expert = 4, .data = 2}},
      {{.tensor = 2, .data = 2}},
      {{.context = 2, .pipeline = 2}},
      {{.context = 2, .expert = 4, .data = 2}},
      {{.context = 2, .data = 2}},
      {{.pipeline = 2, .expert = 2, .data = 2}, 2},
      {{.pipeline = 2, .data = 2}},
      {{.expert = 2, .data = 4}},

      {{.tensor = 8}},
      {{.context = 8}},
      {{.pipeline = 8}},
      {{.expert = 8, .data = 8}},
      {{.data = 8}},
      {{.tensor = 4, .context = 2}},
      {{.tensor = 2, .context = 4}},
      {{.tensor = 2, .pipeline = 4}},
      {{.tensor = 4, .expert = 8, .data = 2}},
      {{.tensor = 2, .data = 4}},
      {{.context = 4, .pipeline = 2}, 2},
      {{.context = 4, .expert = 8, .data = 2}},
      {{.context = 2, .data = 4}},
      {{.pipeline = 2, .expert = 4, .data = 4}},
      {{.pipeline = 4, .data = 2}},
      {{.expert = 4, .data = 8}},
      {{.tensor = 2, .context = 2, .data = 2}},
      {{.tensor = 2, .context = 2, .pipeline = 2}},
      {{.tensor = 2, .context = 2, .expert = 8, .data = 2}},
      {{.tensor = 2, .pipeline = 2, .data = 2}},
      {{.context = 2, .pipeline = 2, .expert = 4, .data = 2}},
      {{.tensor = 2, .context = 2, .pipeline = 2, .expert = 4}},

      {{.tensor = 2, .context = 2, .pipeline = 2, .expert = 4, .data = 2}},
      {{.tensor = 2, .context = 2, .pipeline = 2, .expert = 8, .data = 2}, 2},
  };
  std::erase_if(all, [&](const Layout& each) { return each.degrees.ranks() != ranks; });
  return all;
}

std::string name_of(const testing::TestParamInfo<Case>& info) {
  const auto& [layout, setting] = info.param;
  const Degrees& d = layout.degrees;
  std::string name;
  for (const auto& [word, degree] : {std::pair{"Tensor", d.tensor},
                                     {"Context", d.context},
                                     {"Pipeline", d.pipeline},
                                     {"Expert", d.expert},
                                     {"Data", d.data}}) {
    name += degree > 1 ? word + std::to_string(degree) : "";
  }
  return name + (layout.chunks > 1 ? "InChunks" : "") + setting.name;
}

// On two and four ranks, and of data ranks, whose bits are those of one, every layout with every
// setting; else, where many share few cores, the settings take turns.
std::vector<Case> cases() {
  const std::vector<Layout> layouts = layouts_of(world().ranks());
  const std::size_t some = settings().size();
  std::vector<Case> all;
  for (std::size_t i = 0; i < some * layouts.size(); ++i) {
    const Layout& layout = layouts[i % layouts.size()];
    const Setting& setting = settings()[i / layouts.size()];
    const bool turn = i / layouts.size() == i % layouts.size() % some;
    if (world().ranks() <= 4 || turn || layout.has_the_bits_of_one(setting)) {
      all.emplace_back(layout, setting);
    }
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(Steps, Layouts, testing::ValuesIn(cases()), name_of);

}  // namespace
}  // namespace qnext
