// SPDX-License-Identifier: Apache-2.0
#include "app/bench_decode.hpp"
#include "app/bench_kernels.hpp"
#include "app/bench_machine.hpp"
#include "app/bench_step.hpp"
#include "app/commands.hpp"
#include "app/precision.hpp"
#include "app/run_config.hpp"
#include "core/peak.hpp"
#include "core/version.hpp"
#include "io/deck.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace qnext {
namespace {

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

struct Bench {
  const BenchOptions& options;
  const RunConfig& config;

  bool wants(const char* part) const { return options.what == part || options.what == "all"; }

  template <class Storage>
  Status operator()() const {
    Peaks peaks{0.0, measured_copy_rate()};
    for (const int extent : {512, 1024, 2048, 4096}) {
      peaks.product = std::max(peaks.product, measured_product_peak(config.run.precision, extent));
    }
    print(fmt::format("peaks, {}: {:.1f} GFLOP/s of products, {:.1f} GB/s of a copy\n",
                      name_of(config.run.precision), 1e-9 * peaks.product, 1e-9 * peaks.copy));
    if (wants("kernels")) {
      print(measurement_table(
          bench_kernels<Storage>(config.model, config.data.microbatch, config.data.sequence),
          peaks));
    }
    if (wants("step")) {
      print(measurement_table(bench_step<Storage>(config), peaks));
    }
    if (wants("decode")) {
      print(bench_decode<Storage>(config));
    }
    return Status::done;
  }
};

struct MachineBench {
  const BenchOptions& options;
  const RunConfig& config;
  const Communicator& world;

  template <class Storage>
  Status operator()() const {
    const Machine machine = bench_machine<Storage>(config, world);
    if (world.first()) {
      print(machine.text(options.deck));
    }
    return Status::done;
  }
};

}  // namespace

Status bench(const BenchOptions& options, const Communicator& world) {
  bool known = false;
  for (const char* part : {"peak", "kernels", "step", "decode", "all", "machine"}) {
    known = known || options.what == part;
  }
  if (!known) {
    throw InputError("bench " + options.what +
                     ": wanted is peak, kernels, step, decode, all or machine");
  }
  const RunConfig config = read_run_config(Deck::read(options.deck, options.overrides));
  if (options.what == "machine") {
    return with_storage(config.run.precision, MachineBench{options, config, world});
  }
  const Version v = version();
  print(fmt::format("qnext {} commit={} backend={} compiler={} threads={}\n", v.version, v.commit,
                    v.backend, v.compiler, Exec().concurrency()));
  print(fmt::format("{}: {} x {} tokens\n", config.run.name, config.data.microbatch,
                    config.data.sequence));
  return with_storage(config.run.precision, Bench{options, config});
}

}  // namespace qnext
