// SPDX-License-Identifier: Apache-2.0
#include "app/bytes.hpp"
#include "app/commands.hpp"
#include "app/flops.hpp"
#include "app/layouts.hpp"
#include "app/memory_plan.hpp"
#include "app/precision.hpp"
#include "app/process_memory.hpp"
#include "app/processor.hpp"
#include "app/run_config.hpp"
#include "app/run_data.hpp"
#include "app/run_folder.hpp"
#include "app/run_log.hpp"
#include "app/trainer.hpp"
#include "core/profile.hpp"
#include "core/version.hpp"
#include "io/deck.hpp"
#include "parallel/process_grid.hpp"
#include "parallel/runtime.hpp"
#include "parallel/watchdog.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstdio>
#include <optional>
#include <ratio>
#include <string>
#include <vector>

namespace qnext {
namespace {

struct TrainAs {
  const RunConfig& config;
  const Deck& deck;
  const RunData& data;
  const RunFolder& folder;
  RunLog& log;
  const ProcessGrid& grid;

  template <class Storage>
  Status operator()() const {
    return Trainer<Storage>(config, deck, data, folder, log, grid).run();
  }
};

// What it takes to make the run again.
void log_origin(const RunConfig& config, RunLog& log) {
  const Version v = version();
  log.line(fmt::format("qnext version={} commit={} backend={} compiler={}", v.version, v.commit,
                       v.backend, v.compiler));
  log.line(
      fmt::format("threads={} processor_features={}", Exec().concurrency(), processor_features()));
  log.line(fmt::format("run={} precision={} seed={} steps={} tokens_per_step={}", config.run.name,
                       name_of(config.run.precision), config.run.seed, config.run.steps,
                       config.data.tokens_per_step()));
}

// Takes the best layout and says why: the best ways that were not taken stand behind it.
void choose_and_log_layout(RunConfig& config, int ranks, int documents, RunLog& log) {
  constexpr int shown = 4;
  const auto layouts = choose_layout(config, ranks, documents);
  if (!layouts.front().fits) {
    throw InputError(fmt::format(
        "parallel.layout = auto: {} ways divide this model and its data over {} ranks, and the "
        "plan of each is above the memory of a rank; see qnext plan --ranks {} --layouts 10",
        layouts.size(), ranks, ranks));
  }
  log.line(fmt::format("layout=auto rates={}",
                       config.machine.empty() ? "round numbers" : config.machine));
  log.line(layout_table(layouts, shown));
}

void log_ranks(const ProcessGrid& grid, RunLog& log) {
  const Degrees& d = grid.degrees;
  log.line(fmt::format("ranks={} tensor={} context={} pipeline={} expert={} data={} mpi={}",
                       grid.world.ranks(), d.tensor, d.context, d.pipeline, d.expert, d.data,
                       Runtime::library()));
  if (grid.world.ranks() > 1) {
    log.line(rank_map(grid));
    if (!Kokkos::SpaceAccessibility<Kokkos::HostSpace, Exec::memory_space>::accessible) {
      log.line(fmt::format("device_messages={}",
                           grid.world.device_memory_goes_straight() ? "straight" : "staged"));
    }
  }
}

void log_pipeline(const RunConfig& config, const ModelPlan& plan, RunLog& log) {
  const Pipeline pipeline = config.pipeline_of_step();
  if (pipeline.stages == 1) {
    return;
  }
  std::vector<std::string> memory;
  for (const MemoryPlan& stage : plan.stages) {
    memory.push_back(format_bytes(stage.total()));
  }
  log.line(
      fmt::format("pipeline={} chunks={} stage_layers=[{}] microbatches={} bubble={:.3f} "
                  "memory of the stages=[{}]",
                  pipeline.stages, pipeline.chunks, fmt::join(config.pipeline.layers, ", "),
                  pipeline.microbatches, bubble_share(pipeline), fmt::join(memory, ", ")));
}

// Bytes that the plan asks of a rank, of the stage that wants most.
std::int64_t log_plan(const RunConfig& config, int documents, RunLog& log) {
  const ModelPlan plan = plan_model(config, documents);
  log.line(fmt::format("parameters={} trained={} layers={} width={}", plan.parameters, plan.trained,
                       config.model.layers(), config.model.width));
  std::string memory = "memory";
  for (const auto& line : plan.largest().lines) {
    memory += fmt::format(" {}={}", line.name, format_bytes(line.bytes));
  }
  const std::int64_t total = plan.largest().total();
  log.line(memory + " total=" + format_bytes(total));
  log_pipeline(config, plan, log);
  std::string formula;
  for (const FlopPart& part : flop_parts(config.model, config.data.sequence)) {
    formula += fmt::format("{}{:.0f} x {} ({})", formula.empty() ? "" : " + ", part.multiply_adds,
                           part.layers, part.name);
  }
  log.line(fmt::format("flops_per_token={:.0f} = {} ({})",
                       flops_per_token(config.model, config.data.sequence),
                       flops_per_multiply_add(config.model), formula));
  return total;
}

void refuse_above_limit(const Deck& deck, std::int64_t limit, std::int64_t planned) {
  deck.section("run").check(
      limit == 0 || planned <= limit, "memory_limit",
      fmt::format("a rank is planned to take {} bytes ({}) and allowed to take {}; fewer tokens in "
                  "data.microbatch, run.recompute, or more ranks in parallel.context or "
                  "parallel.tensor want less",
                  planned, format_bytes(planned), limit));
}

// The plan against what the run took beside what the program holds before it begins: of the rank
// that took most.
void log_memory(std::int64_t planned, std::int64_t at_start, const Communicator& world,
                RunLog& log) {
  std::vector<std::int64_t> most{peak_resident_bytes() - at_start};
  world.maximum(most);
  const std::int64_t taken = most.front();
  log.line(fmt::format("memory planned={} taken={} difference={:+.1f}% at_start={}",
                       format_bytes(planned), format_bytes(taken),
                       100.0 * (static_cast<double>(taken) / static_cast<double>(planned) - 1.0),
                       format_bytes(at_start)));
}

}  // namespace

Status train(const TrainOptions& options, const Communicator& world) {
  const auto begin = std::chrono::steady_clock::now();
  const Deck deck = Deck::read(options.deck, options.overrides);
  RunConfig config = read_run_config(deck, world.ranks());
  const RunFolder folder(config.output.folder);
  RunLog log(folder.file("log.txt"), world);
  log_origin(config, log);
  const RunData data(config);
  const int documents = data.most_documents();
  if (config.chooses_layout) {
    choose_and_log_layout(config, world.ranks(), documents, log);
  }
  const ProcessGrid grid(config.degrees, world.with_device_memory(config.device_messages.value_or(
                                             world.device_memory_goes_straight())));
  log_ranks(grid, log);
  const std::int64_t planned = log_plan(config, documents, log);
  refuse_above_limit(deck, config.run.memory_limit, planned);
  if (world.first()) {
    folder.write_deck(deck);
  }
  std::optional<Watchdog> watchdog;
  if (world.ranks() > 1 && config.watchdog > 0.0) {
    const std::chrono::duration<double, std::ratio<60>> minutes(config.watchdog);
    watchdog.emplace(world, std::chrono::duration_cast<std::chrono::milliseconds>(minutes),
                     [](const std::string& where) { fmt::print(stderr, "qnext: {}\n", where); });
  }
  if (options.profile) {
    Profile::start();
  }
  const std::int64_t at_start = resident_bytes();
  const Status status =
      with_storage(config.run.precision, TrainAs{config, deck, data, folder, log, grid});
  log_memory(planned, at_start, world, log);
  if (options.profile) {
    Profile::stop();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    log.line(Profile::table(seconds.count()));
    log.line(world.traffic().table());
  }
  return status;
}

}  // namespace qnext
