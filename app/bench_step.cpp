// SPDX-License-Identifier: Apache-2.0
#include "app/bench_step.hpp"

#include "app/activations.hpp"
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

template std::vector<Measurement> bench_step<bf16>(const RunConfig&);
template std::vector<Measurement> bench_step<float>(const RunConfig&);
template std::vector<Measurement> bench_step<double>(const RunConfig&);

}  // namespace qnext
