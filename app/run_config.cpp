// SPDX-License-Identifier: Apache-2.0
#include "app/run_config.hpp"

#include "app/bytes.hpp"
#include "app/degrees.hpp"
#include "app/fine_tune_section.hpp"
#include "app/hugging_face_model.hpp"
#include "app/hugging_face_stream.hpp"
#include "app/model_section.hpp"
#include "io/deck.hpp"
#include "io/hugging_face_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

namespace qnext {
namespace {

RunSettings read_run(const Section& deck) {
  RunSettings run;
  run.name = deck.get<std::string>("name");
  deck.check(!run.name.empty() && run.name.find('/') == std::string::npos, "name",
             "must be a word without a slash");
  run.seed = deck.get("seed", std::uint64_t{1});
  run.steps = deck.get<std::int64_t>("steps");
  deck.check(run.steps >= 0, "steps", "must not be negative");
  run.precision = deck.choose<DataType>(
      "precision",
      {{"double", DataType::float64}, {"float", DataType::float32}, {"bf16", DataType::bf16}},
      DataType::float32);
  run.wall_time = deck.get("wall_time", 0.0);
  deck.check(run.wall_time >= 0.0, "wall_time", "must not be negative; 0: no limit");
  const auto memory = parse_bytes(deck.get("memory_limit", "0"));
  deck.check(memory.has_value(), "memory_limit",
             "must be bytes or, for example, 2 GiB; 0: no limit");
  run.memory_limit = memory.value_or(0);
  run.dropout = deck.get("dropout", 0.0);
  deck.check(run.dropout >= 0.0 && run.dropout < 1.0, "dropout", "must be from 0 to below 1");
  run.gradient_order = deck.choose<GradientOrder>(
      "gradient_order", {{"tree", GradientOrder::tree}, {"running", GradientOrder::running}},
      GradientOrder::tree);
  run.peak_flops = deck.get("peak_flops", 0.0);
  deck.check(run.peak_flops >= 0.0, "peak_flops", "must not be negative; 0: measured");
  return run;
}

Recompute read_recompute(const Section& run) {
  return run.choose<Recompute>(
      "recompute",
      {{"none", Recompute::none}, {"mixer", Recompute::mixer}, {"block", Recompute::block}},
      Recompute::none);
}

InitSettings read_init(const Section& model) {
  InitSettings init;
  init.path = model.get("init", "random");
  init.member = model.get("init_member", std::uint64_t{0});
  if (init.path == "random") {
    return init;
  }
  model.check(std::filesystem::exists(init.path), "init",
              "is neither random nor a checkpoint, run folder or Hugging Face folder that exists");
  init.kind = std::filesystem::exists(std::filesystem::path(init.path) / "config.json")
                  ? InitSettings::Kind::hugging_face
                  : InitSettings::Kind::checkpoint;
  return init;
}

// A path, or a list of them with weights.
std::vector<SourceConfig> read_sources(const Section& deck, const char* key) {
  if (!deck.is_list(key)) {
    SourceConfig source;
    source.path = deck.get<std::string>(key);
    return {source};
  }
  std::vector<SourceConfig> sources;
  for (const Section& entry : deck.sections(key)) {
    SourceConfig source;
    source.path = entry.get<std::string>("path");
    source.weight = entry.get("weight", 1.0);
    entry.check(source.weight > 0.0, "weight", "must be positive");
    if (source.path.rfind("synthetic:", 0) == 0) {
      source.document = entry.get("document", source.document);
      entry.check(source.document > 0, "document", "must be positive");
      source.tokens = entry.get("tokens", source.tokens);
      entry.check(source.tokens >= source.document, "tokens", "must be at least one document");
    }
    sources.push_back(source);
  }
  deck.check(!sources.empty(), key, "names no data");
  return sources;
}

void read_evaluation(const Section& deck, DataSettings& data) {
  if (deck.has("path")) {
    data.evaluate = read_sources(deck, "path");
  } else {
    data.last_fraction = deck.get("last_fraction", 0.0);
    deck.check(data.last_fraction >= 0.0 && data.last_fraction < 1.0, "last_fraction",
               "must be from 0 to below 1");
  }
  data.evaluate_every = deck.get("every", std::int64_t{0});
  deck.check(data.evaluate_every >= 0, "every", "must not be negative; 0: at the end alone");
}

DataSettings read_data(const Section& deck) {
  DataSettings data;
  data.train = read_sources(deck, "train");
  read_evaluation(deck.section("evaluate"), data);
  const std::string separator = deck.get("separator", "");
  const std::string tokenizer = deck.get("tokenizer", "");
  for (auto* sources : {&data.train, &data.evaluate}) {
    for (SourceConfig& source : *sources) {
      source.separator = separator;
      source.tokenizer = tokenizer;
    }
  }
  data.shuffle = deck.get("shuffle", true);
  data.pack = deck.get("pack", true);
  data.sequence = deck.get<int>("sequence");
  deck.check(data.sequence > 0, "sequence", "must be positive");
  data.batch = deck.get<int>("batch");
  deck.check(data.batch > 0, "batch", "must be positive");
  data.microbatch = deck.get("microbatch", data.batch);
  deck.check(data.microbatch > 0, "microbatch", "must be positive");
  deck.check(data.batch % data.microbatch == 0, "batch",
             fmt::format("must be a multiple of microbatch, {}", data.microbatch));
  return data;
}

Schedule read_schedule(const Section& deck, std::int64_t run_steps) {
  using Kind = Schedule::Kind;
  Schedule s;
  s.peak = deck.get<double>("peak");
  deck.check(s.peak > 0.0, "peak", "must be positive");
  s.kind = deck.choose<Kind>("schedule",
                             {{"constant", Kind::constant},
                              {"cosine", Kind::cosine},
                              {"warmup_stable_decay", Kind::warmup_stable_decay}},
                             Kind::cosine);
  s.steps = deck.get("steps", run_steps);
  deck.check(s.steps >= 0, "steps", "must not be negative");
  s.warmup = deck.get("warmup", std::int64_t{0});
  deck.check(s.warmup >= 0 && s.warmup <= s.steps, "warmup",
             fmt::format("must be from 0 to the steps of the schedule, {}", s.steps));
  if (s.kind == Kind::warmup_stable_decay) {
    s.decay = deck.get<std::int64_t>("decay");
    deck.check(s.decay >= 0 && s.decay <= s.steps - s.warmup, "decay",
               fmt::format("must be from 0 to steps - warmup, {}", s.steps - s.warmup));
  }
  if (s.kind != Kind::constant || deck.has("final_fraction")) {
    s.final_fraction = deck.get("final_fraction", 0.1);
    deck.check(s.final_fraction >= 0.0 && s.final_fraction <= 1.0, "final_fraction",
               "must be from 0 to 1");
  }
  return s;
}

SpikeSettings read_spike(const Section& deck) {
  using Action = SpikeSettings::Action;
  SpikeSettings spike;
  spike.action = deck.choose<Action>("action",
                                     {{"none", Action::none},
                                      {"warn", Action::warn},
                                      {"stop", Action::stop},
                                      {"skip", Action::skip}},
                                     Action::none);
  spike.factor = deck.get("factor", 4.0);
  deck.check(spike.factor > 1.0, "factor", "must be above 1");
  spike.window = deck.get("window", 50);
  deck.check(spike.window > 0, "window", "must be positive");
  return spike;
}

OptimizerSettings read_optimizer(const Section& deck, std::int64_t run_steps) {
  OptimizerSettings optimizer;
  optimizer.learning_rate = read_schedule(deck.section("learning_rate"), run_steps);
  AdamWConfig& adamw = optimizer.adamw;
  const auto betas = deck.get("betas", std::vector<double>{0.9, 0.95});
  deck.check(betas.size() == 2, "betas", "has two entries: [0.9, 0.95]");
  for (const double beta : betas) {
    deck.check(beta >= 0.0 && beta < 1.0, "betas", "each must be from 0 to below 1");
  }
  adamw.beta1 = betas[0];
  adamw.beta2 = betas[1];
  adamw.epsilon = deck.get("epsilon", 1e-8);
  deck.check(adamw.epsilon > 0.0, "epsilon", "must be positive");
  adamw.weight_decay = deck.get("weight_decay", 0.1);
  deck.check(adamw.weight_decay >= 0.0, "weight_decay", "must not be negative");
  adamw.decay_norms = deck.get("decay_norms", false);
  adamw.clip = deck.get("clip", 1.0);
  deck.check(adamw.clip >= 0.0, "clip", "must not be negative; 0: no clipping");
  optimizer.on_bad_number = deck.choose<OnBadNumber>(
      "on_bad_number", {{"stop", OnBadNumber::stop}, {"skip", OnBadNumber::skip}},
      OnBadNumber::stop);
  optimizer.spike = read_spike(deck.section("spike"));
  return optimizer;
}

double read_receive_factor(const Section& parallel) {
  const double factor = parallel.get("receive_factor", 2.0);
  parallel.check(factor >= 1.0, "receive_factor",
                 "must be at least 1: the rows of a rank whose experts are chosen as often as the "
                 "others");
  return factor;
}

std::int64_t read_bucket(const Section& parallel) {
  const auto bytes = parse_bytes(parallel.get("bucket", "25 MiB"));
  parallel.check(bytes.value_or(0) > 0, "bucket", "must be positive bytes, for example 25 MiB");
  return *bytes;
}

std::optional<bool> read_device_messages(const Section& deck) {
  using Choice = std::optional<bool>;
  return deck.choose<Choice>(
      "device_messages",
      {{"detect", Choice{}}, {"straight", Choice{true}}, {"staged", Choice{false}}}, Choice{});
}

OutputSettings read_output(const Section& deck, const std::string& run_name) {
  OutputSettings output;
  output.folder = deck.get("folder", "out/" + run_name);
  deck.check(!output.folder.empty(), "folder", "must name a folder");
  output.log_every = deck.get("log_every", std::int64_t{10});
  deck.check(output.log_every > 0, "log_every", "must be positive");
  if (deck.is_section("checkpoint_every")) {
    const Section every = deck.section("checkpoint_every");
    output.checkpoint_minutes = every.get<double>("minutes");
    every.check(output.checkpoint_minutes > 0.0, "minutes", "must be positive");
  } else {
    output.checkpoint_every = deck.get("checkpoint_every", std::int64_t{100});
    deck.check(output.checkpoint_every >= 0, "checkpoint_every",
               "must not be negative; 0: none, unless the run is interrupted");
  }
  output.keep = deck.get("keep", 2);
  deck.check(output.keep > 0, "keep", "must be positive");
  output.resume = deck.get("resume", "latest");
  deck.check(output.resume == "latest" || output.resume == "never" ||
                 std::filesystem::exists(output.resume),
             "resume", "is neither latest nor never nor a checkpoint that exists");
  output.tensorboard = deck.get("tensorboard", false);
  return output;
}

double read_mtp_loss(const Section& model, int modules) {
  const Section deck = model.section("multi_token_prediction");
  const double loss = deck.get("loss", 0.1);
  deck.check(loss >= 0.0, "loss", "must not be negative");
  return modules == 0 ? 0.0 : loss;
}

}  // namespace

StreamConfig RunConfig::training_stream() const {
  StreamConfig stream;
  stream.sources = data.train;
  stream.sequence = data.sequence;
  stream.vocabulary = model.vocabulary;
  stream.pack = data.pack;
  stream.shuffle = data.shuffle;
  stream.seed = run.seed;
  stream.held_out = data.last_fraction;
  return stream;
}

StreamConfig RunConfig::evaluation_stream() const {
  StreamConfig stream = training_stream();
  if (!data.evaluate.empty()) {
    stream.sources = data.evaluate;
    stream.held_out = 0.0;
  }
  return stream;
}

MicrobatchShape RunConfig::shape(int documents) const {
  MicrobatchShape shape;
  shape.tokens = data.microbatch * data.sequence / degrees.context;
  shape.sequences = data.microbatch;
  shape.documents = data.microbatch * documents;
  return shape;
}

Machine machine_of(const RunConfig& config) {
  return config.machine.empty() ? Machine::typical() : Machine::read(config.machine);
}

RunConfig read_run_config(const Deck& deck, std::optional<int> ranks) {
  RunConfig config;
  const Section run = deck.section("run"), model = deck.section("model");
  config.run = read_run(run);
  config.init = read_init(model);
  std::optional<ModelConfig> folder;
  if (config.init.kind == InitSettings::Kind::hugging_face) {
    folder = model_of_folder(config.init.path);
  }
  config.model = read_model(model, folder ? &*folder : nullptr);
  config.model.recompute = read_recompute(run);
  const FineTune fine_tune = read_fine_tune(deck.section("fine_tune"), config.model);
  config.model.adapters = fine_tune.adapters;
  config.init.adapter = fine_tune.adapter;
  config.mtp_loss = read_mtp_loss(model, config.model.mtp_modules);
  config.data = read_data(deck.section("data"));
  config.optimizer = read_optimizer(deck.section("optimizer"), config.run.steps);
  const Section parallel = deck.root().section("parallel", "layout");
  config.chooses_layout =
      parallel.choose<bool>("layout", {{"given", false}, {"auto", true}}, false);
  config.machine = parallel.get("machine", "");
  if (!config.chooses_layout) {
    config.degrees =
        read_degrees(parallel, config.model,
                     {config.data.sequence, config.data.batch, config.data.microbatch}, ranks);
    config.pipeline = read_pipeline_cut(parallel, config.model, config.degrees.pipeline,
                                        config.microbatches_of_rank(), config.data.sequence);
  } else {
    config.pipeline = {1, 1, balanced_cut(config.model, 1, 1, config.data.sequence)};
  }
  config.model.layer.experts.receive_factor = read_receive_factor(parallel);
  config.bucket = read_bucket(parallel);
  config.zero = parallel.get("zero", 1);
  parallel.check(config.zero == 1 || config.zero == 2, "zero",
                 "must be 1 or 2: data ranks share what the optimizer holds, or the sums of "
                 "gradients too");
  parallel.check(config.zero == 1 || !config.model.adapters.any(), "zero",
                 "must be 1 beside fine_tune.lora: the gradients of adapters are few");
  config.device_messages = read_device_messages(parallel);
  config.watchdog = parallel.get("watchdog", 10.0);
  parallel.check(config.watchdog >= 0.0, "watchdog", "must not be negative; 0: none");
  config.output = read_output(deck.section("output"), config.run.name);
  deck.refuse_unread();
  return config;
}

}  // namespace qnext
