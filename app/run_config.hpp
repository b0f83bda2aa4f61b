// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/gradient_sum.hpp"
#include "app/machine.hpp"
#include "app/pipeline_cut.hpp"
#include "app/pipeline_schedule.hpp"
#include "app/schedule.hpp"
#include "core/types.hpp"
#include "io/data_stream.hpp"
#include "layers/adamw.hpp"
#include "layers/model.hpp"
#include "parallel/process_grid.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qnext {

class Deck;

struct RunSettings {
  std::string name;
  std::uint64_t seed = 1;
  std::int64_t steps = 0;
  DataType precision = DataType::float32;  // storage of weights and activations
  double wall_time = 0.0;                  // minutes; 0: no limit
  std::int64_t memory_limit = 0;           // bytes that the plan of a rank may want; 0: no limit
  double dropout = 0.0;
  GradientOrder gradient_order = GradientOrder::tree;
  double peak_flops = 0.0;  // per second, what MFU is a share of; 0: measured at the start
};

/// Where the weights start.
struct InitSettings {
  enum class Kind { random, checkpoint, hugging_face };
  Kind kind = Kind::random;
  std::string path;
  std::string adapter = {};  // of the adapters: a folder of PEFT; empty: as they begin
  std::uint64_t member = 0;  // of an ensemble, see move_by_one_rounding; 0: the weights as they are
  std::string unused = {};   // tensors of a checkpoint whose names begin so need not be taken
};

struct DataSettings {
  std::vector<SourceConfig> train;
  std::vector<SourceConfig> evaluate;  // empty: the last part of the training data
  double last_fraction = 0.0;          // of the training data, held out for evaluation
  std::int64_t evaluate_every = 0;     // steps; 0: at the end alone
  bool shuffle = true;
  bool pack = true;
  int sequence = 0;    // tokens
  int batch = 0;       // sequences per step
  int microbatch = 0;  // sequences in one forward pass

  bool evaluates() const { return !evaluate.empty() || last_fraction > 0.0; }
  int microbatches() const { return batch / microbatch; }
  std::int64_t tokens_per_step() const { return std::int64_t{1} * batch * sequence; }
};

enum class OnBadNumber { stop, skip };

struct SpikeSettings {
  enum class Action { none, warn, stop, skip };
  Action action = Action::none;
  double factor = 4.0;  // over the median of the gradient norm
  int window = 50;      // steps
};

struct OptimizerSettings {
  Schedule learning_rate;
  AdamWConfig adamw;
  OnBadNumber on_bad_number = OnBadNumber::stop;
  SpikeSettings spike;
};

struct OutputSettings {
  std::string folder;
  std::int64_t log_every = 10;        // steps
  std::int64_t checkpoint_every = 0;  // steps; 0: not by steps
  double checkpoint_minutes = 0.0;    // 0: not by time
  int keep = 2;
  std::string resume = "latest";  // latest | never | a checkpoint
  bool tensorboard = false;

  /// Whether the run leaves checkpoints without being interrupted.
  bool checkpoints() const { return checkpoint_every > 0 || checkpoint_minutes > 0.0; }
};

/// Everything that a deck decides, as plain values.
struct RunConfig {
  RunSettings run;
  InitSettings init;
  ModelConfig model;
  double mtp_loss = 0.0;  // coefficient
  DataSettings data;
  OptimizerSettings optimizer;
  Degrees degrees;
  bool chooses_layout = false;  // `parallel: auto`: the degrees are those of choose_layout
  std::string machine;          // file of rates for that; empty: round numbers
  PipelineCut pipeline;
  std::int64_t bucket = std::int64_t{25} << 20;  // bytes of gradients that are sent at a time
  int zero = 1;            // data ranks share the optimizer's numbers; 2: sums of gradients too
  double watchdog = 10.0;  // minutes that a rank may stand still before it says where; 0: none
  std::optional<bool> device_messages;  // device memory goes straight to MPI; absent: MPI is asked
  OutputSettings output;

  /// Consecutive microbatches of a step that one data rank takes.
  int microbatches_of_rank() const { return data.microbatches() / degrees.data; }

  /// Which microbatch of a step the m-th of a data rank is, and who takes a microbatch: ranks that
  /// keep all gradients take consecutive ones, others take turns, so that both add them in one
  /// tree.
  int microbatch_of_step(int data_place, int m) const {
    return zero == 2 ? m * degrees.data + data_place : data_place * microbatches_of_rank() + m;
  }
  struct Taker {
    int data_place, m;
  };
  Taker taker_of(int microbatch) const {
    const int count = microbatches_of_rank();
    return zero == 2 ? Taker{microbatch % degrees.data, microbatch / degrees.data}
                     : Taker{microbatch / count, microbatch % count};
  }

  /// What a data rank's stages do in a step.
  Pipeline pipeline_of_step() const {
    return {degrees.pipeline, pipeline.chunks, microbatches_of_rank()};
  }

  /// What the streams of training and of evaluation are made of.
  StreamConfig training_stream() const;
  StreamConfig evaluation_stream() const;

  /// What one rank holds of the largest microbatch, with at most `documents` pieces of documents in
  /// each sequence.
  MicrobatchShape shape(int documents = 1) const;
};

/// The rates that a plan of this run goes by.
Machine machine_of(const RunConfig& config);

/// Reads every key, refuses what is wrong with file, line, key and value, and what nothing reads.
/// `ranks` of a job are shared out as the deck says; without a job the data degree is that of the
/// deck, or 1. With `parallel: auto` all degrees are 1.
RunConfig read_run_config(const Deck& deck, std::optional<int> ranks = {});

}  // namespace qnext
