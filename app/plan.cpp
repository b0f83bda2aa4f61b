// SPDX-License-Identifier: Apache-2.0
#include "app/bytes.hpp"
#include "app/commands.hpp"
#include "app/flops.hpp"
#include "app/layouts.hpp"
#include "app/memory_plan.hpp"
#include "app/run_config.hpp"
#include "app/run_data.hpp"
#include "app/run_log.hpp"
#include "app/step_prediction.hpp"
#include "io/deck.hpp"
#include "layers/experts_over_ranks.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>

namespace qnext {
namespace {

// 79674391296 -> "79,674,391,296"
std::string with_commas(std::int64_t number) {
  std::string digits = std::to_string(number);
  for (int place = static_cast<int>(digits.size()) - 3; place > 0; place -= 3) {
    digits.insert(place, 1, ',');
  }
  return digits;
}

std::string memory_table(const MemoryPlan& memory, int stages) {
  constexpr std::size_t most_lines = 12;
  std::string text =
      stages == 1 ? "memory of one rank\n" : "memory of one rank, of the stage that wants most\n";
  for (const auto& line : memory.lines) {
    text += fmt::format("  {:<34}{:>20}  {}\n", line.name, with_commas(line.bytes),
                        format_bytes(line.bytes));
  }
  text += fmt::format("  {:<34}{:>20}  {}\n", "total", with_commas(memory.total()),
                      format_bytes(memory.total()));
  text += "activations at the fullest moment, all layers\n";
  std::int64_t rest = 0;
  for (std::size_t i = 0; i < memory.activations.size(); ++i) {
    const auto& line = memory.activations[i];
    if (i >= most_lines) {
      rest += line.bytes;
      continue;
    }
    text += fmt::format("  {:<34}{:>20}  {}\n", line.name, with_commas(line.bytes),
                        format_bytes(line.bytes));
  }
  return rest == 0 ? text
                   : text + fmt::format("  {:<34}{:>20}  {}\n", "others", with_commas(rest),
                                        format_bytes(rest));
}

// What an expert degree wants, which is part of the activations.
std::string receive_line(const RunConfig& config) {
  const int degree = config.degrees.expert;
  if (degree == 1) {
    return "";
  }
  const MixtureOfExpertsConfig& experts = config.model.layer.experts;
  const int tokens = config.shape().tokens;
  const int rows = ExpertsOverRanks<float>({}, degree, experts.experts, experts.receive_factor)
                       .most_rows(tokens, experts.experts_per_token);
  const std::int64_t bytes =
      std::int64_t{2} * rows * config.model.width * size_of(config.run.precision);
  return fmt::format(
      "experts over {} ranks: in a round a rank takes {} rows, {} times the balanced {}\n"
      "  {:<34}{:>20}  {}\n",
      degree, with_commas(rows), experts.receive_factor,
      with_commas(std::int64_t{1} * tokens * experts.experts_per_token),
      "receive buffer, of the activations", with_commas(bytes), format_bytes(bytes));
}

// Whether `train` would begin.
std::string limit_line(std::int64_t limit, std::int64_t planned) {
  return limit == 0 ? ""
                    : fmt::format(
                          "  {:<34}{:>20}  {}\n",
                          planned <= limit ? "run.memory_limit" : "run.memory_limit, which is less",
                          with_commas(limit), format_bytes(limit));
}

struct Pieces {
  int in_a_sequence = 1;  // pieces of documents, at most
  std::string note;
};

// Activations have room for the documents that the data hold, if the data are here.
Pieces documents_of(const RunConfig& config) {
  try {
    return {RunData(config).most_documents(), ""};
  } catch (const InputError& error) {
    return {1, fmt::format("planned for one document a sequence: {}\n", error.what())};
  }
}

// "7.736 GFLOP"
std::string format_flops(double flops) {
  const char* const units[] = {"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"};
  int unit = 0;
  for (; flops >= 1000.0 && unit < 5; ++unit) {
    flops /= 1000.0;
  }
  return fmt::format("{:.3f} {}", flops, units[unit]);
}

std::string flop_table(const RunConfig& config) {
  const auto length = static_cast<double>(config.data.sequence);
  const int each = flops_per_multiply_add(config.model);
  std::string text = fmt::format(
      "FLOPs of training one token at {} tokens a document: {} x multiply-adds x layers\n",
      config.data.sequence, each);
  for (const FlopPart& part : flop_parts(config.model, length)) {
    text += fmt::format("  {:<34}{:>20}  x {:<4}{:>16}\n", part.name,
                        with_commas(static_cast<std::int64_t>(part.multiply_adds)), part.layers,
                        format_flops(each * part.multiply_adds * part.layers));
  }
  const double sum = flops_per_token(config.model, length);
  text += fmt::format("  {:<34}{:>20}        {:>16}\n", "total", "", format_flops(sum));
  text += fmt::format("  {:<34}{:>20}        {:>16}\n", "a step",
                      fmt::format("{} tokens", with_commas(config.data.tokens_per_step())),
                      format_flops(sum * static_cast<double>(config.data.tokens_per_step())));
  return text;
}

std::string traffic_table(const TrafficPlan& traffic) {
  if (traffic.lines.empty()) {
    return "";
  }
  std::string text = "bytes that the first rank sends in a step, by the ranks that they go to\n";
  for (const auto& line : traffic.lines) {
    text += fmt::format("  {:<34}{:>20}  {} in {} calls\n", line.group, with_commas(line.bytes),
                        format_bytes(line.bytes), with_commas(line.calls));
  }
  return text;
}

// How many ranks share the work, and how.
std::string degrees_line(const Degrees& d) {
  return d.ranks() == 1
             ? ""
             : fmt::format("  {:<34}{:>20}  tensor={} context={} pipeline={} expert={} data={}\n",
                           "ranks", with_commas(d.ranks()), d.tensor, d.context, d.pipeline,
                           d.expert, d.data);
}

// The stages of a pipeline: what each has, keeps and computes, and what they wait for.
std::string pipeline_table(const RunConfig& config, const ModelPlan& plan) {
  const Pipeline pipeline = config.pipeline_of_step();
  if (pipeline.stages == 1) {
    return "";
  }
  std::string text = fmt::format(
      "pipeline of {} stages with {} {} each, {} microbatches\n"
      "  {:<7}{:<26}{:>16}{:>20}  {}\n",
      pipeline.stages, pipeline.chunks, pipeline.chunks == 1 ? "chunk" : "chunks",
      pipeline.microbatches, "stage", "layers", "FLOPs of a token", "memory", "in flight");
  const auto costs = piece_costs(config.model, config.pipeline.layers, config.data.sequence);
  double most = 0.0, sum = 0.0;
  for (int stage = 0; stage < pipeline.stages; ++stage) {
    const auto slots = most_in_flight(pipeline_schedule(pipeline, stage), pipeline.chunks);
    std::string layers;
    double flops = 0.0;
    for (const Chunk& chunk : config.pipeline.chunks_of(stage)) {
      layers += fmt::format(
          "{}{}", layers.empty() ? "" : ", ",
          chunk.layers() == 0 ? "none" : fmt::format("{}-{}", chunk.begin, chunk.end - 1));
      layers += chunk.first() ? " + embedding" : chunk.last() ? " + head" : "";
      flops += 6.0 * static_cast<double>(costs[chunk.place]);
    }
    text += fmt::format("  {:<7}{:<26}{:>16}{:>20}  {}\n", stage, layers, format_flops(flops),
                        with_commas(plan.stages[stage].total()), fmt::join(slots, " + "));
    most = std::max(most, flops);
    sum += flops;
  }
  const int wide = size_of(accum_of(config.run.precision));
  const std::int64_t row = std::int64_t{1} * config.model.width * wide;
  const std::int64_t rows =
      (config.shape().tokens + config.degrees.tensor - 1) / config.degrees.tensor;
  return text +
         fmt::format("  {:<34}{:>19.1f}%  of the work of a stage\n", "idle, stages alike",
                     100.0 * bubble_share(pipeline)) +
         fmt::format("  {:<34}{:>20.3f}  times the mean\n", "largest stage",
                     most * pipeline.stages / sum) +
         fmt::format("  {:<34}{:>20}  {} a microbatch, from chunk to chunk, and as many back\n",
                     "sent", with_commas(rows * row), format_bytes(rows * row));
}

}  // namespace

Status plan(const PlanOptions& options) {
  const bool tries = options.layouts > 0;  // the degrees of the deck count for nothing then
  RunConfig config =
      read_run_config(Deck::read(options.deck, options.overrides),
                      options.ranks > 0 && !tries ? std::optional(options.ranks) : std::nullopt);
  if (!options.machine.empty()) {
    config.machine = options.machine;
  }
  const Pieces documents = documents_of(config);
  const int ranks = options.ranks > 0 ? options.ranks : config.degrees.ranks();
  std::vector<Layout> layouts;
  if (tries || config.chooses_layout) {
    layouts = choose_layout(config, ranks, documents.in_a_sequence);
  }
  const ModelPlan plan = plan_model(config, documents.in_a_sequence);
  std::string text = fmt::format(
      "{}: {} layers, width {}, vocabulary {}, {}\n", config.run.name, config.model.layers(),
      config.model.width, with_commas(config.model.vocabulary), name_of(config.run.precision));
  text += degrees_line(config.degrees);
  text += fmt::format("  {:<34}{:>20}\n", "parameters", with_commas(plan.parameters));
  if (plan.mtp_parameters > 0) {
    text += fmt::format("  {:<34}{:>20}\n", "without multi-token prediction",
                        with_commas(plan.parameters - plan.mtp_parameters));
  }
  const MemoryPlan& memory = plan.largest();
  text += memory_table(memory, config.degrees.pipeline) +
          limit_line(config.run.memory_limit, memory.total()) + receive_line(config) +
          documents.note + flop_table(config) + pipeline_table(config, plan) +
          traffic_table(plan.traffic);
  if (!config.machine.empty()) {
    text += prediction_table(predict_step(config, plan, machine_of(config)));
  }
  if (tries) {
    text += layout_table(layouts, options.layouts);
  }
  std::fputs(text.c_str(), stdout);
  return Status::done;
}

}  // namespace qnext
