// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/require.hpp"
#include "parallel/communicator.hpp"

#include <memory>
#include <string>

namespace qnext {

/// MPI from here to the end of the program: the one object that knows all ranks of the job. A build
/// without MPI has a job of one rank.
class Runtime {
 public:
  Runtime(int& argc, char**& argv);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  /// All ranks of the job.
  const Communicator& world() const { return world_; }

  /// What one rank does with an error that nobody caught: the lowest rank that fails prints the
  /// message and its number, once, and ends the job with the status. A job of one rank returns the
  /// status.
  int fail(Status status, const std::string& message) const;

  /// "Open MPI v4.1.4", or "none".
  static std::string library();

 private:
  struct Alarm;  // how failing ranks hear of each other

  std::unique_ptr<Alarm> alarm_;
  Communicator world_;
};

}  // namespace qnext
