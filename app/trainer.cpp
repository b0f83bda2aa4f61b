// SPDX-License-Identifier: Apache-2.0
#include "app/trainer.hpp"

#include "app/bytes.hpp"
#include "app/evaluation.hpp"
#include "app/flops.hpp"
#include "app/model_start.hpp"
#include "app/process_memory.hpp"
#include "app/processor.hpp"
#include "core/fence.hpp"
#include "core/matmul.hpp"
#include "core/peak.hpp"
#include "core/phase.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace qnext {
namespace {

double seconds_between(std::chrono::steady_clock::time_point begin,
                       std::chrono::steady_clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

// "size=1.20GiB seconds=2.50", of a file that was written or read since `begin`.
std::string file_speed(const std::string& path, std::chrono::steady_clock::time_point begin) {
  std::error_code ignored;
  const auto bytes = static_cast<double>(std::filesystem::file_size(path, ignored));
  return fmt::format("size={:.2f}GiB seconds={:.2f}", ignored ? 0.0 : bytes / 0x1p30,
                     seconds_between(begin, std::chrono::steady_clock::now()));
}

// "3 of 66 gradients are not finite, first that of A, last that of B"
std::string bad_gradients(const AdamW::GradientNorms& norms) {
  const auto count = std::count_if(norms.squares.begin(), norms.squares.end(),
                                   [](double square) { return !std::isfinite(square); });
  return fmt::format(
      "{} of {} gradients are not finite, the first is that of {}, the last that of {}", count,
      norms.squares.size(), norms.first_bad, norms.last_bad);
}

}  // namespace

template <class Storage>
Trainer<Storage>::Trainer(const RunConfig& config, const Deck& deck, const RunData& data,
                          const RunFolder& folder, RunLog& log, const ProcessGrid& grid)
    : config_(config),
      deck_(deck),
      data_(data),
      folder_(folder),
      log_(log),
      grid_(grid),
      trained_(config.model, true, grid, config.pipeline.chunks_of(grid.place.pipeline),
               config.bucket, config.zero),
      optimizer_(config.optimizer.adamw, trained_.table, grid, config.zero == 2),
      largest_(config.shape(data.most_documents())),
      step_(config, grid, trained_.model, trained_.table, optimizer_, largest_),
      spikes_(config.optimizer.spike.factor, config.optimizer.spike.window),
      checkpoints_(folder.checkpoints().string(), config.output.keep),
      peak_flops_(config.run.peak_flops) {}

// The checkpoint to go on from, or nothing.
template <class Storage>
std::string Trainer<Storage>::find_start() {
  if (grid_.world.first()) {
    for (const std::string& leftover : checkpoints_.remove_leftovers()) {
      log_.line("removed " + leftover + ", which an interrupted run left half-written");
    }
  }
  const auto found = checkpoints_.find_newest(grid_.world);
  if (config_.output.resume == "never" && !found.path.empty()) {
    throw InputError(fmt::format(
        "output.resume = never: {} holds checkpoints of an earlier run, the newest of step {}; "
        "choose another output.folder or remove this one",
        folder_.path().string(), found.step));
  }
  for (const auto& refused : found.refused) {
    log_.line(fmt::format("refused {}: {}", refused.path, refused.reason));
  }
  return config_.output.resume == "latest" || config_.output.resume == "never"
             ? found.path
             : checkpoint_of(config_.output.resume, grid_.world);
}

template <class Storage>
void Trainer<Storage>::start() {
  const std::string path = find_start();
  if (!path.empty()) {
    resume(path);
  } else {
    origin_ = start_weights(config_.init, config_.run.seed, trained_.table, grid_.world);
    optimizer_.copy_masters_from_parameters();
    state_.cursor = data_.training.start();
    const std::uint64_t member = config_.init.member;
    log_.line(fmt::format("start={}{}", config_.init.path,
                          member > 0 ? fmt::format(" member={}", member) : ""));
  }
  if (peak_flops_ == 0.0) {
    peak_flops_ = measured_product_peak(config_.run.precision, 1024);
  }
  log_.line(fmt::format("peak_flops={:.4g} ({})", peak_flops_,
                        config_.run.peak_flops > 0.0 ? "of the deck" : "measured"));
  if (grid_.world.first()) {
    metrics_.emplace(folder_.path().string(), state_.step, config_.output.tensorboard);
  }
}

template <class Storage>
void Trainer<Storage>::resume(const std::string& path) {
  const auto begin = Clock::now();
  const CheckpointContent content = read_checkpoint_content(path);
  const Record here = program_record(exec_.concurrency(), processor_features());
  for (const std::string& difference : content.record("program").differences(here)) {
    log_.line("resume: the checkpoint was written by another program, bits may differ: " +
              difference);
  }
  read_checkpoint_tensors(path, trained_.table, optimizer_families(optimizer_), grid_.world);
  state_ = restart_state(content, trained_.model.balance_loss().previous_counts());
  origin_ = HuggingFaceOrigin::of_checkpoint(content);
  updates_before_ = state_.updates;
  data_.training.check(state_.cursor);
  spikes_.restore(state_.usual_norms);
  last_checkpoint_ = state_.step;
  log_.line(fmt::format("resume={} step={} {}", path, state_.step, file_speed(path, begin)));
}

template <class Storage>
bool Trainer<Storage>::may_update(const StepNumbers& numbers) {
  const auto& settings = config_.optimizer;
  const std::int64_t step = state_.step;
  if (!numbers.gradients.first_bad.empty() || !std::isfinite(numbers.loss)) {
    const std::string what = numbers.gradients.first_bad.empty()
                                 ? fmt::format("step {}: the loss is {}", step, numbers.loss)
                                 : fmt::format("step {}: the loss is {} and {}", step, numbers.loss,
                                               bad_gradients(numbers.gradients));
    if (settings.on_bad_number == OnBadNumber::stop) {
      throw BadNumberError(what);
    }
    log_.line(what + "; skipped");
    return false;
  }
  using Action = SpikeSettings::Action;
  if (settings.spike.action == Action::none || !spikes_.is_spike(numbers.gradients.global)) {
    return true;
  }
  const std::string what =
      fmt::format("step {}: the gradient norm is {:.4g}, {:.1f} times the usual", step,
                  numbers.gradients.global, numbers.gradients.global / spikes_.usual());
  if (settings.spike.action == Action::stop) {
    throw BadNumberError(what + fmt::format("; at most {} times is wanted", settings.spike.factor));
  }
  log_.line(what + (settings.spike.action == Action::skip ? "; skipped" : ""));
  return settings.spike.action == Action::warn;
}

template <class Storage>
void Trainer<Storage>::step() {
  const auto begin = Clock::now();
  ++state_.step;
  std::vector<TokenBatch> batches;
  const int count = config_.microbatches_of_rank();
  for (int m = 0; m < count; ++m) {
    const std::int64_t microbatch = config_.microbatch_of_step(grid_.place.data, m);
    batches.push_back(data_.training.batch(state_.cursor, microbatch * config_.data.microbatch,
                                           config_.data.microbatch));
  }
  const StepNumbers numbers = step_.compute_gradients(exec_, state_.step, batches);
  const double rate = config_.optimizer.learning_rate.rate(state_.step);
  if (may_update(numbers)) {
    ++state_.updates;
    step_.update(exec_, state_.updates, rate, numbers.gradients.global);
  }
  fence(exec_, "train: the step is timed");
  state_.cursor.sequences += config_.data.batch;
  state_.tokens += numbers.tokens;
  state_.usual_norms = spikes_.recent();
  const double seconds = seconds_between(begin, Clock::now());
  state_.seconds += seconds;
  longest_step_ = std::max(longest_step_, seconds);

  evaluated_.reset();
  const std::int64_t every = config_.data.evaluate_every;
  const bool last = state_.step == config_.run.steps;
  if (data_.evaluation && (last || (every > 0 && state_.step % every == 0))) {
    evaluate();
  }
  report(numbers, rate, seconds);
}

template <class Storage>
void Trainer<Storage>::evaluate() {
  step_.wait_for_weights();
  const auto begin = Clock::now();
  const EvaluationResult result = qnext::evaluate(
      exec_, trained_.model, step_.memory(), step_.messages(), largest_, *data_.evaluation, grid_);
  evaluated_ = result.loss;
  const bool best = result.loss < state_.best_loss;
  if (best) {
    state_.best_loss = result.loss;
    state_.best_step = state_.step;
  }
  log_.line(fmt::format("step={} evaluation_loss={:.5f} labels={} seconds={:.2f}{}", state_.step,
                        result.loss, result.labels, seconds_between(begin, Clock::now()),
                        best ? " best" : ""));
}

template <class Storage>
void Trainer<Storage>::report(const StepNumbers& numbers, double rate, double seconds) {
  if (!metrics_) {
    return;
  }
  RunMetrics::Speed speed;
  const double peak = peak_flops_ * grid_.world.ranks();
  const double flops = flops_per_token(config_.model, numbers.mean_length);
  speed.tokens_per_second = static_cast<double>(numbers.tokens) / seconds;
  speed.mfu = peak > 0.0 ? flops * speed.tokens_per_second / peak : 0.0;
  speed.peak_memory = peak_resident_bytes();
  metrics_->write(state_.step, state_.tokens, numbers, rate, speed, evaluated_);

  interval_tokens_ += numbers.tokens;
  interval_seconds_ += seconds;
  const bool interval =
      state_.step % config_.output.log_every == 0 || state_.step == config_.run.steps;
  Progress progress;
  progress.step = state_.step;
  progress.steps = config_.run.steps;
  progress.loss = numbers.loss;
  progress.tokens_per_second = static_cast<double>(interval_tokens_) / interval_seconds_;
  progress.mfu = peak > 0.0 ? flops * progress.tokens_per_second / peak : 0.0;
  progress.memory = speed.peak_memory;
  progress.seconds_left = static_cast<double>(config_.run.steps - state_.step) *
                          static_cast<double>(numbers.tokens) / progress.tokens_per_second;
  log_.progress(progress, interval);
  if (interval) {
    interval_tokens_ = 0;
    interval_seconds_ = 0.0;
    metrics_->flush();
  }
}

// Signals reach some ranks, files are seen by the first, clocks differ: the largest answer holds.
template <class Storage>
typename Trainer<Storage>::Requests Trainer<Storage>::requests() const {
  const OutputSettings& output = config_.output;
  const auto now = Clock::now();
  const bool first = grid_.world.first();
  const double limit = 60.0 * config_.run.wall_time;
  const bool by_time = output.checkpoint_minutes > 0.0 &&
                       seconds_between(checkpoint_time_, now) >= 60.0 * output.checkpoint_minutes;
  const bool by_step =
      evaluated_ && state_.best_step == state_.step
          ? output.checkpoints()
          : output.checkpoint_every > 0 && state_.step % output.checkpoint_every == 0;
  std::vector<std::int64_t> asked{
      signals_.received(), first && folder_.asks("stop"), first && folder_.asks("checkpoint_now"),
      limit > 0.0 && seconds_between(begin_, now) + longest_step_ >= limit, by_step || by_time};
  grid_.world.maximum(asked);
  return {static_cast<int>(asked[0]), asked[1] != 0, asked[2] != 0, asked[3] != 0, asked[4] != 0};
}

template <class Storage>
void Trainer<Storage>::checkpoint(const char* why) {
  if (last_checkpoint_ != state_.step) {
    const Phase phase("checkpoint");
    step_.wait_for_weights();
    if (metrics_) {
      metrics_->flush();
    }
    CheckpointContent content =
        restart_content(state_, trained_.model.balance_loss().previous_counts());
    content.given_deck = deck_.text();
    content.resolved_deck = deck_.resolved();
    content.records.insert_or_assign("program",
                                     program_record(exec_.concurrency(), processor_features()));
    if (origin_) {
      HuggingFaceOrigin origin = *origin_;
      origin.updates += state_.updates - updates_before_;
      content.records.insert_or_assign("hugging_face", origin.record());
    }
    const auto begin = Clock::now();
    const std::string path = checkpoints_.write(
        content, trained_.table, optimizer_families(optimizer_), optimizer_.shards(), grid_.world);
    if (grid_.world.first()) {
      log_.line(fmt::format("checkpoint={} why={} {}", path, why, file_speed(path, begin)));
    }
    last_checkpoint_ = state_.step;
  }
  if (state_.best_step == state_.step && evaluated_ && grid_.world.first()) {
    checkpoints_.keep_as_best(state_.step);
  }
  checkpoint_time_ = Clock::now();
}

template <class Storage>
void Trainer<Storage>::finish_request(const char* file) const {
  if (grid_.world.first()) {
    folder_.answer(file);
  }
}

template <class Storage>
std::optional<Status> Trainer<Storage>::answer(const Requests& requests) {
  if (requests.signal != 0) {
    const char* const signal = name_of_signal(requests.signal);
    checkpoint(signal);
    log_.line(fmt::format("interrupted by {} after step {}; the same command goes on", signal,
                          state_.step));
    return Status::interrupted;
  }
  if (requests.stop) {
    checkpoint("stop");
    finish_request("stop");
    log_.line(fmt::format("stopped by the file stop after step {}", state_.step));
    return Status::done;
  }
  if (requests.checkpoint_now) {
    checkpoint("checkpoint_now");
    finish_request("checkpoint_now");
  }
  if (requests.wall_time_is_over) {
    checkpoint("wall_time");
    log_.line(
        fmt::format("the wall time of {} minutes is over after step {}; the same command goes on",
                    config_.run.wall_time, state_.step));
    return Status::interrupted;
  }
  return std::nullopt;
}

template <class Storage>
Status Trainer<Storage>::run() {
  start();
  while (state_.step < config_.run.steps) {
    step();
    const Requests asked = requests();
    if (asked.checkpoint_is_due) {
      checkpoint(evaluated_ && state_.best_step == state_.step ? "best" : "interval");
    }
    if (state_.step == config_.run.steps) {
      break;
    }
    if (const auto status = answer(asked)) {
      return *status;
    }
  }
  step_.wait_for_weights();
  if (config_.output.checkpoints()) {
    checkpoint("end");
  }
  if (metrics_) {
    metrics_->flush();
  }
  log_.line(fmt::format(
      "done: step={} tokens={} training_seconds={:.1f} wall_seconds={:.1f} peak_memory={} "
      "vendor_workspace={}",
      state_.step, state_.tokens, state_.seconds, seconds_between(begin_, Clock::now()),
      format_bytes(peak_resident_bytes()), format_bytes(matmul_workspace_bytes())));
  return Status::done;
}

template class Trainer<bf16>;
template class Trainer<float>;
template class Trainer<double>;

}  // namespace qnext
