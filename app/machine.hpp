// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

#include <cstdint>
#include <string>

namespace qnext {

/// What one rank of a machine reaches while its neighbours work as hard: measured on some ranks by
/// `qnext bench machine`, kept in a small YAML file, and what `qnext plan` predicts a step with.
/// The arithmetic rates hold forward and backward passes of whole layers, at the shapes of the deck
/// that they were measured with.
struct Machine {
  std::string backend = "any";  // openmp, cuda, hip
  int ranks = 1;                // that were measured at the same time
  int threads = 1;              // of a rank
  DataType precision = DataType::float32;

  // FLOP/s as app/flops.hpp counts them
  double delta_net = 0.0;
  double attention = 0.0;
  double experts = 0.0;
  double dense = 0.0;
  double logits = 0.0;

  double copy = 0.0;        // bytes/s, read and written
  double messages = 0.0;    // bytes/s that a rank sends while it receives as many
  double latency = 0.0;     // s of an exchange of nothing
  double overlap = 0.0;     // share of a message's time in which its rank computes on; 0 to 1
  std::int64_t memory = 0;  // bytes that a rank may use; 0: not said

  /// Round numbers of a rank on some cores of a server, for layouts to be compared where nobody
  /// measured: only their ratios matter then.
  static Machine typical();

  /// Refuses a file with file, line, key and value.
  static Machine read(const std::string& path);

  /// The file's text.
  std::string text(const std::string& deck) const;
};

}  // namespace qnext
