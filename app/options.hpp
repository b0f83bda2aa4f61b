// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/commands.hpp"

#include <string>
#include <variant>
#include <vector>

namespace qnext {

/// A whole command line. The first alternative says that everything asked for was printed
/// (--help, --version), or that Kokkos prints it (--kokkos-help).
struct CommandLine {
  std::variant<std::monostate, TrainOptions, PlanOptions, GenerateOptions, CompareOptions,
               ConvertOptions, BenchOptions, EvaluateOptions, TokenizeOptions, InfoOptions>
      command;
  std::vector<std::string> kokkos;  // flags that are passed on: --kokkos-threads=2
};

/// Throws InputError with the sentence that helps. Needs no Kokkos. `mpi`: what --version says of
/// it.
CommandLine parse_command_line(int argc, const char* const* argv, const std::string& mpi);

}  // namespace qnext
