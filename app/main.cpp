// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "app/options.hpp"
#include "app/processor.hpp"
#include "core/out_of_memory.hpp"
#include "core/profile.hpp"
#include "core/require.hpp"
#include "core/subnormals.hpp"
#include "io/hdf5_start.hpp"
#include "parallel/runtime.hpp"

#include <Kokkos_Core.hpp>
#include <fmt/format.h>

#include <exception>
#include <string>
#include <variant>
#include <vector>

namespace {

using namespace qnext;

// Kokkos from here to the end of the program.
class KokkosRuntime {
 public:
  explicit KokkosRuntime(std::vector<std::string>& flags) {
    std::string name = "qnext", no_warnings = "--kokkos-disable-warnings";
    std::vector<char*> arguments{name.data(), no_warnings.data()};
    for (std::string& flag : flags) {
      arguments.push_back(flag.data());
    }
    arguments.push_back(nullptr);
    int count = static_cast<int>(arguments.size()) - 1;
    find_kokkos_tools();
    Kokkos::initialize(count, arguments.data());
    if (count > 1) {
      const std::string unknown = arguments[1];
      Kokkos::finalize();
      throw InputError(unknown + ": Kokkos knows no such flag; see qnext --kokkos-help");
    }
  }
  ~KokkosRuntime() { Kokkos::finalize(); }
  KokkosRuntime(const KokkosRuntime&) = delete;
  KokkosRuntime& operator=(const KokkosRuntime&) = delete;
};

struct Run {
  const Communicator& world;

  Status operator()(std::monostate) const { return Status::done; }
  Status operator()(const TrainOptions& options) const { return train(options, world); }
  Status operator()(const PlanOptions& options) const { return plan(options); }
  Status operator()(const GenerateOptions& options) const { return generate(options, world); }
  Status operator()(const CompareOptions& options) const { return compare(options); }
  Status operator()(const ConvertOptions& options) const { return convert(options); }
  Status operator()(const BenchOptions& options) const { return bench(options, world); }
  Status operator()(const EvaluateOptions& options) const { return evaluate(options, world); }
  Status operator()(const TokenizeOptions& options) const { return tokenize(options); }
  Status operator()(const InfoOptions& options) const { return info(options); }
};

bool runs_on_ranks(const auto& command) {
  const auto* const bench = std::get_if<BenchOptions>(&command);
  return std::holds_alternative<TrainOptions>(command) ||
         std::holds_alternative<GenerateOptions>(command) ||
         std::holds_alternative<EvaluateOptions>(command) || (bench && bench->what == "machine");
}

Status run(int argc, char** argv, const Runtime& runtime) {
  check_processor();
  const Communicator& world = runtime.world();
  CommandLine line = parse_command_line(argc, argv, Runtime::library());
  if (std::holds_alternative<std::monostate>(line.command) && line.kokkos.empty()) {
    return Status::done;
  }
  if (world.ranks() > 1 && !runs_on_ranks(line.command)) {
    throw InputError(
        fmt::format("the job has {} ranks; only train, generate, evaluate and bench machine run on "
                    "more than one",
                    world.ranks()));
  }
  const KokkosRuntime kokkos(line.kokkos);
  flush_subnormals();
  return std::visit(Run{world}, line.command);
}

}  // namespace

int main(int argc, char** argv) {
  start_hdf5();
  const Runtime runtime(argc, argv);
  try {
    return static_cast<int>(run(argc, argv, runtime));
  } catch (const Error& error) {
    return runtime.fail(error.status(), error.what());
  } catch (const std::exception& error) {
    return is_out_of_memory(error)
               ? runtime.fail(Status::environment,
                              "the machine has no memory left; see qnext plan for what the deck "
                              "needs, and take a smaller data.microbatch or run.recompute=block")
               : runtime.fail(Status::defect, error.what());
  }
}
