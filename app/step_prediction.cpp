// SPDX-License-Identifier: Apache-2.0
#include "app/step_prediction.hpp"

#include "app/flops.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <string_view>
#include <vector>

namespace qnext {
namespace {

double rate_of(const Machine& machine, std::string_view part) {
  return part == "delta net"               ? machine.delta_net
         : part == "experts"               ? machine.experts
         : part == "dense MLP"             ? machine.dense
         : part.rfind("attention", 0) == 0 ? machine.attention
                                           : machine.logits;
}

bool is_mixer(std::string_view part) {
  return part == "delta net" || part.rfind("attention", 0) == 0;
}

// Forward once, backward twice that, and what the recompute policy does once more.
double passes(Recompute recompute, std::string_view part) {
  const bool in_layer = part != "logits" && part.rfind("multi-token", 0) != 0;
  const bool again = recompute == Recompute::block   ? in_layer
                     : recompute == Recompute::mixer ? is_mixer(part)
                                                     : false;
  return again ? 4.0 : 3.0;
}

// Work of the largest stage in units of the mean.
double largest_stage(const RunConfig& config) {
  const auto costs = piece_costs(config.model, config.pipeline.layers, config.data.sequence);
  std::vector<double> stages(config.pipeline.stages, 0.0);
  for (std::size_t piece = 0; piece < costs.size(); ++piece) {
    stages[piece % stages.size()] += static_cast<double>(costs[piece]);
  }
  const double sum = std::accumulate(stages.begin(), stages.end(), 0.0);
  const double most = *std::max_element(stages.begin(), stages.end());
  return sum > 0.0 ? most * static_cast<double>(stages.size()) / sum : 1.0;
}

// Multiply-adds of a token that context ranks add to a delta net, on the rank that has most: the
// walks for the memories of layers/README.md, "A document on several ranks", one product with K V
// for each unit. Where a document begins with the rank and goes on, forward walks once more with V
// columns, in its middle with K + V; backward walks once more where a document arrived.
double further_walks(const GatedDeltaNetConfig& n, int context, bool forward_again) {
  if (context == 1) {
    return 0.0;
  }
  const double forward = context == 2 ? 2.0 : 4.0, backward = 3.0;
  return (forward * (forward_again ? 2.0 : 1.0) + backward) * n.value_heads * n.key_width *
         n.value_width;
}

// Numbers of a row of D that norms, residual additions and casts of a layer and its MLP read or
// write, forward and backward.
constexpr double numbers_a_layer = 30.0;

double seconds_of(const TrafficPlan::Line& line, const Machine& machine) {
  return static_cast<double>(line.bytes) / machine.messages +
         static_cast<double>(line.calls) * machine.latency;
}

// Gradients go behind the last backward pass, or behind each of them where no rank keeps all, and
// weights behind the first forward pass, as far as these are long enough; one call of each, the
// last or the first one, has nothing to hide behind.
double hideable_seconds(const RunConfig& config, const TrafficPlan& traffic, const Machine& machine,
                        double arithmetic, double forward) {
  const double passes = config.microbatches_of_rank();
  double gradients = 0.0, weights = 0.0;
  for (const TrafficPlan::Line& line : traffic.lines) {
    const double behind = seconds_of(line, machine) *
                          (1.0 - 1.0 / static_cast<double>(std::max<std::int64_t>(line.calls, 1)));
    gradients += line.group.rfind("gradients", 0) == 0 ? behind : 0.0;
    weights += line.group.rfind("weights", 0) == 0 ? behind : 0.0;
  }
  const double backward = (arithmetic - forward) / (config.zero == 2 ? 1.0 : passes);
  return std::min(gradients, backward) + std::min(weights, forward / passes);
}

}  // namespace

StepPrediction predict_step(const RunConfig& config, const ModelPlan& plan,
                            const Machine& machine) {
  const Degrees& d = config.degrees;
  const ModelConfig& model = config.model;
  StepPrediction step;
  step.tokens = static_cast<double>(config.data.tokens_per_step());
  // Tensor and context ranks share the arithmetic of a sequence, stages that of the layers: the
  // largest stage is waited for.
  const double share = step.tokens / (1.0 * d.tensor * d.context * d.pipeline * d.data);
  double forward = 0.0;
  for (const FlopPart& part : flop_parts(model, static_cast<double>(config.data.sequence))) {
    forward += 2.0 * part.multiply_adds * part.layers * share / rate_of(machine, part.name);
    step.arithmetic += 2.0 * passes(model.recompute, part.name) * part.multiply_adds * part.layers *
                       share / rate_of(machine, part.name);
  }
  const auto delta_nets = std::count(model.mixers.begin(), model.mixers.end(), Mixer::delta_net);
  step.arithmetic +=
      2.0 * further_walks(model.layer.delta_net, d.context, model.recompute != Recompute::none) *
      static_cast<double>(delta_nets) * share / machine.delta_net;
  forward *= largest_stage(config);
  step.arithmetic *= largest_stage(config);
  const double wide = size_of(accum_of(config.run.precision));
  const double elements = static_cast<double>(plan.local_elements);
  const double optimizer = 8.0 * wide * elements / (d.context * d.data);  // and the norm
  const double clears = 2.0 * wide * elements * config.microbatches_of_rank();
  const double rows = numbers_a_layer * model.width * model.layers() * share * wide;
  step.memory = (optimizer + clears + rows) / machine.copy;
  step.messages = static_cast<double>(plan.traffic.bytes()) / machine.messages +
                  static_cast<double>(plan.traffic.calls()) * machine.latency;
  step.hideable = hideable_seconds(config, plan.traffic, machine, step.arithmetic, forward);
  step.hidden = machine.overlap * step.hideable;
  step.bubble = (step.arithmetic + step.messages) * bubble_share(config.pipeline_of_step());
  return step;
}

std::string prediction_table(const StepPrediction& p) {
  std::string text = "a step as predicted\n";
  const auto line = [&](const char* name, double seconds) {
    text += fmt::format("  {:<34}{:>20}  {:.1f} %\n", name, fmt::format("{:.4g} s", seconds),
                        100.0 * seconds / p.seconds());
  };
  line("arithmetic", p.arithmetic);
  line("memory", p.memory);
  line("messages", p.messages);
  line("hidden of the messages", -p.hidden);
  line("pipeline bubble", p.bubble);
  line("together", p.seconds());
  text += fmt::format("  {:<34}{:>20}\n", "tokens/s of all ranks",
                      fmt::format("{:.0f}", p.tokens_per_second()));
  text += fmt::format("  {:<34}{:>20}\n", "on a device that overlaps",
                      fmt::format("{:.4g} s", p.seconds_of_overlap()));
  text += fmt::format("  {:<34}{:>18.1f} %\n", "messages hidden there",
                      p.messages > 0.0 ? 100.0 * p.hideable / p.messages : 0.0);
  return text;
}

}  // namespace qnext
