// SPDX-License-Identifier: Apache-2.0
#include "app/bench_step.hpp"

#include "app/activations.hpp"
#include "app/decoder.hpp"
#include "app/flops.hpp"
#include "core/random.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace qnext {
namespace {

Tensor<const int, 1> random_tokens(int count, int vocabulary, std::uint64_t seed) {
  const Tensor<int, 1> device("bench tokens", count);
  const auto host = Kokkos::create_mirror_view(device);
  const std::uint64_t key = random_key(seed, "bench");
  for (int i = 0; i < count; ++i) {
    host(i) = static_cast<int>(random_bits(key, i) % vocabulary);
  }
  Kokkos::deep_copy(device, host);
  return device;
}

}  // namespace

template <class Storage>
std::vector<Measurement> bench_step(const RunConfig& config) {
  ParameterTable table;
  const Model<Storage> model(config.model, ProcessGrid{}, table);
  table.lay_out();
  initialise(table, config.run.seed);
  AdamW optimizer(config.optimizer.adamw, table);
  optimizer.copy_masters_from_parameters();
  MicrobatchShape shape = config.shape();
  shape.documents = shape.sequences;
  Arena plan;
  Activations<Storage>::reserve(model, plan, shape);
  Arena arena(plan.peak());
  auto activations = Activations<Storage>::reserve(model, arena, shape);
  const int T = shape.tokens, sequence = T / shape.sequences;
  const Microbatch batch{
      random_tokens(T, config.model.vocabulary, 1), random_tokens(T, config.model.vocabulary, 2),
      make_documents(std::vector<int>(shape.sequences, sequence), shape.sequences)};
  const LossSums sums = LossSums::make();
  const int microbatches = config.data.microbatches();
  const double share = 1.0 / (1.0 * T * microbatches);
  const LossScale scale{share, config.mtp_loss * share, 1.0 / microbatches};
  const Exec exec;
  const auto forward = [&] {
    model.forward(exec, batch, Dropout{}, activations.saved, activations.work);
  };
  const auto backward = [&] {
    model.backward(exec, batch, scale, Dropout{}, activations.saved, activations.work, sums);
  };
  const auto update = [&] {
    const auto norms = optimizer.gradient_norms(exec);
    optimizer.update(exec, 1, 1e-9, norms.global);
  };
  const double flops = flops_per_token(config.model, sequence) * T;
  std::vector<Measurement> measured;
  measured.push_back({"forward of a microbatch, without head", 0.0, 0.0, shortest_time(forward)});
  measured.push_back({"backward of a microbatch, with head", 0.0, 0.0, shortest_time(backward)});
  measured.push_back({"gradient norm and update", 0.0, 0.0, shortest_time(update)});
  const double seconds = shortest_time([&] {
    table.zero_gradients(exec);
    for (int m = 0; m < microbatches; ++m) {
      forward();
      backward();
    }
    update();
  });
  measured.push_back({fmt::format("step: {:.0f} tokens/s", T * microbatches / seconds),
                      flops * microbatches, 0.0, seconds});
  return measured;
}

template <class Storage>
std::vector<Measurement> bench_decode(const RunConfig& config) {
  constexpr int prompt = 512, capacity = 1024, begin = 64;
  ModelConfig model_config = config.model;
  model_config.mtp_modules = 0;
  const ProcessGrid grid;
  ParameterTable table;
  const Model<Storage> model(model_config, grid, table);
  table.lay_out(false);
  initialise(table, config.run.seed);
  Decoder<Storage> decoder(model, grid, {.documents = 1, .capacity = capacity, .piece = prompt});
  std::vector<int> tokens(prompt);
  const std::uint64_t key = random_key(3, "bench");
  for (int i = 0; i < prompt; ++i) {
    tokens[i] = static_cast<int>(random_bits(key, i) % model_config.vocabulary);
  }
  const auto read = [&](int count) {
    decoder.begin(0);
    decoder.read(0, {tokens.begin(), tokens.begin() + count});
  };
  // Logits of the last token on the host are part of it: without them nothing can be sampled.
  const double prefill = shortest_time([&] { read(prompt); });
  read(begin);
  const double step = shortest_time([&] {
    if (decoder.length(0) == capacity) {
      read(begin);
    }
    decoder.step({{0, {tokens[decoder.length(0) % prompt]}}});
  });
  // Weights that one token reads: all but the experts that are not chosen and the embedding.
  const auto& experts = model_config.layer.experts;
  double bytes = 0.0;
  for (const Parameter& row : table.rows()) {
    double elements = static_cast<double>(row.elements());
    if (row.name == "model.embed_tokens.weight" && !model_config.tied_head) {
      elements = model_config.width;
    } else if (row.name.find(".mlp.experts.") != std::string::npos) {
      elements *= static_cast<double>(experts.experts_per_token) / experts.experts;
    }
    bytes += elements * size_of(row.type);
  }
  for (const Mixer mixer : model_config.mixers) {  // states are read and written
    const auto& net = model_config.layer.delta_net;
    bytes += mixer == Mixer::delta_net
                 ? 2.0 * sizeof(Accum<Storage>) * net.value_heads * net.key_width * net.value_width
                 : 0.0;
  }
  return {
      {fmt::format("prefill of {}: {:.0f} tokens/s", prompt, prompt / prefill), 0.0, 0.0, prefill},
      {fmt::format("decode at batch 1: {:.1f} tokens/s", 1.0 / step), 0.0, bytes, step}};
}

#define QNEXT_INSTANTIATE(Storage)                                         \
  template std::vector<Measurement> bench_step<Storage>(const RunConfig&); \
  template std::vector<Measurement> bench_decode<Storage>(const RunConfig&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
