// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "app/flops.hpp"
#include "app/memory_plan.hpp"
#include "app/precision.hpp"
#include "app/processor.hpp"
#include "app/run_config.hpp"
#include "app/run_folder.hpp"
#include "app/run_log.hpp"
#include "app/trainer.hpp"
#include "core/profile.hpp"
#include "core/version.hpp"
#include "io/deck.hpp"
#include "parallel/communicator.hpp"

#include <fmt/format.h>

#include <chrono>

namespace qnext {
namespace {

struct TrainAs {
  const RunConfig& config;
  const Deck& deck;
  const RunFolder& folder;
  RunLog& log;

  template <class Storage>
  Status operator()() const {
    return Trainer<Storage>(config, deck, folder, log).run();
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

void log_plan(const RunConfig& config, RunLog& log) {
  const ModelPlan plan = plan_model(config, most_documents(config));
  log.line(fmt::format("parameters={} layers={} width={}", plan.parameters, config.model.layers(),
                       config.model.width));
  std::string memory = "memory";
  for (const auto& line : plan.memory.lines) {
    memory += fmt::format(" {}={}", line.name, format_bytes(line.bytes));
  }
  log.line(memory + " total=" + format_bytes(plan.memory.total()));
  std::string formula;
  for (const FlopPart& part : flop_parts(config.model, config.data.sequence)) {
    formula += fmt::format("{}{:.0f} x {} ({})", formula.empty() ? "" : " + ", part.multiply_adds,
                           part.layers, part.name);
  }
  log.line(fmt::format("flops_per_token={:.0f} = 6 ({})",
                       flops_per_token(config.model, config.data.sequence), formula));
}

}  // namespace

Status train(const TrainOptions& options, const Communicator& world) {
  if (world.ranks() > 1) {
    throw InputError(fmt::format("the job has {} ranks; this build trains on one", world.ranks()));
  }
  const auto begin = std::chrono::steady_clock::now();
  const Deck deck = Deck::read(options.deck, options.overrides);
  const RunConfig config = read_run_config(deck, world.ranks());
  const RunFolder folder(config.output.folder);
  RunLog log(folder.file("log.txt"));
  log_origin(config, log);
  log_plan(config, log);
  folder.write_deck(deck);
  if (options.profile) {
    Profile::start();
  }
  const Status status = with_storage(config.run.precision, TrainAs{config, deck, folder, log});
  if (options.profile) {
    Profile::stop();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    log.line(Profile::table(seconds.count()));
  }
  return status;
}

}  // namespace qnext
