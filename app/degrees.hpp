// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/deck.hpp"
#include "layers/model.hpp"
#include "parallel/process_grid.hpp"

#include <optional>

namespace qnext {

/// What the degrees of parallelism have to divide, beside the model.
struct SharedData {
  int sequence = 1;  // tokens
  int batch = 1;     // sequences of a step
  int microbatch = 1;

  int microbatches() const { return batch / microbatch; }
};

/// Whether these degrees divide a model and its data.
bool fits(const Degrees& degrees, const ModelConfig& model, const SharedData& data);

/// Reads the degrees of the section `parallel`. What cannot be divided evenly (heads, experts,
/// sequences, microbatches, the ranks of the job) is refused with the degrees that can. Data ranks
/// that are not given are those which the other degrees leave of a job; without a job they are as
/// many as experts want.
Degrees read_degrees(const Section& parallel, const ModelConfig& model, const SharedData& data,
                     std::optional<int> ranks);

/// The same for programs that train nothing, where data and context ranks take documents of their
/// own, so that there are data ranks alone: a document is not cut. `ranks` are those of the job.
Degrees read_decoding_degrees(const Section& parallel, const ModelConfig& model, int ranks);

/// That grid of the ranks of this job, from keys of the command line: "parallel.tensor=2".
ProcessGrid decoding_grid(const std::vector<std::string>& keys, const ModelConfig& model,
                          const Communicator& world);

}  // namespace qnext
