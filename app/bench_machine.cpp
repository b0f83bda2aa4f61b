// SPDX-License-Identifier: Apache-2.0
#include "app/bench_machine.hpp"

#include "app/bench_kernels.hpp"
#include "core/fence.hpp"
#include "core/matmul.hpp"
#include "core/peak.hpp"
#include "core/version.hpp"

#include <algorithm>
#include <chrono>
#include <limits>
#include <string_view>

namespace qnext {
namespace {

// FLOP/s of all measurements whose names begin so; 0: there are none.
double rate_of(const std::vector<Measurement>& measured, std::string_view name) {
  double flops = 0.0, seconds = 0.0;
  for (const Measurement& each : measured) {
    if (each.name.rfind(name, 0) == 0) {
      flops += each.flops;
      seconds += each.seconds;
    }
  }
  return seconds > 0.0 ? flops / seconds : 0.0;
}

// Seconds in which a rank swaps that many bytes with its neighbour: the shortest of some runs.
double swap_seconds(const Communicator& world, std::int64_t bytes) {
  const Tensor<std::byte, 1> mine("bench: sent", bytes), other("bench: received", bytes);
  const int partner = world.rank() ^ 1;
  const bool takes_part = partner < world.ranks();
  double shortest = std::numeric_limits<double>::infinity();
  for (int run = 0; run < 10; ++run) {
    world.barrier();
    const auto begin = std::chrono::steady_clock::now();
    if (takes_part) {
      world.exchange({{partner, buffer_of(mine)}}, {{partner, buffer_of(other)}});
    }
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
    shortest = std::min(shortest, time.count());
  }
  return shortest;
}

// The share of a swap's time that is left for products, between which the messages are moved on: a
// swap and products that take four times as long, alone and together, the shortest of some runs.
template <class Storage>
double measured_overlap(const Communicator& world, std::int64_t bytes, double swap) {
  constexpr int extent = 256;
  const Exec exec;
  const Tensor<Storage, 2> a("bench: a", extent, extent), c("bench: c", extent, extent);
  const Tensor<std::byte, 1> mine("bench: sent", bytes), other("bench: received", bytes);
  const int partner = world.rank() ^ 1;
  const bool takes_part = partner < world.ranks();
  const auto seconds = [&](int products, bool with_swap) {
    double shortest = std::numeric_limits<double>::infinity();
    for (int run = 0; run < 10; ++run) {
      world.barrier();
      const auto begin = std::chrono::steady_clock::now();
      Transfer transfer;
      if (with_swap && takes_part) {
        transfer = world.start({{partner, buffer_of(mine)}}, {{partner, buffer_of(other)}});
      }
      for (int i = 0; i < products; ++i) {
        matmul<Storage, Storage>(exec, Op::none, a, Op::transpose, a, c);
        if (i % 8 == 7) {
          transfer.progress();
        }
      }
      fence(exec, "bench: end of the timed products");
      transfer.wait();
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
      shortest = std::min(shortest, time.count());
    }
    return shortest;
  };
  const double one = seconds(8, false) / 8.0;
  const int products = std::clamp(static_cast<int>(4.0 * swap / one), 8, 100000);
  const double hidden = seconds(products, false) + swap - seconds(products, true);
  return std::clamp(hidden / swap, 0.0, 1.0);
}

// The least of all ranks. Rates are far above 1, seconds are asked for as their inverse.
double slowest(double rate, const Communicator& world) {
  const auto all = world.all_gather(std::vector<double>{rate});
  return *std::min_element(all.begin(), all.end());
}

}  // namespace

template <class Storage>
Machine bench_machine(const RunConfig& config, const Communicator& world) {
  Machine machine;
  machine.backend = version().backend;
  machine.ranks = world.ranks();
  machine.threads = Exec().concurrency();
  machine.precision = config.run.precision;
  world.barrier();
  const auto measured =
      bench_layers<Storage>(config.model, config.data.microbatch, config.data.sequence);
  machine.delta_net = rate_of(measured, "gated delta net");
  machine.attention = rate_of(measured, "gated attention");
  machine.experts = rate_of(measured, "experts");
  machine.dense = rate_of(measured, "dense MLP");
  machine.logits = rate_of(measured, "head and loss");
  // What the model has not is as fast as what most of it is made of.
  for (double* const rate : {&machine.experts, &machine.dense}) {
    *rate = *rate > 0.0 ? *rate : std::max(machine.experts, machine.dense);
    *rate = *rate > 0.0 ? *rate : machine.logits;
  }
  machine.copy = measured_copy_rate();
  const Machine none = Machine::typical();
  machine.messages = none.messages;
  machine.latency = none.latency;
  if (world.ranks() > 1) {
    constexpr std::int64_t large = std::int64_t{16} << 20;
    machine.latency = 1.0 / slowest(1.0 / swap_seconds(world, 8), world);
    const double swap = swap_seconds(world, large);
    machine.messages = large / swap;
    machine.overlap = slowest(measured_overlap<Storage>(world, large, swap), world);
  }
  for (double* const rate : {&machine.delta_net, &machine.attention, &machine.experts,
                             &machine.dense, &machine.logits, &machine.copy, &machine.messages}) {
    *rate = slowest(*rate, world);
  }
  return machine;
}

template Machine bench_machine<bf16>(const RunConfig&, const Communicator&);
template Machine bench_machine<float>(const RunConfig&, const Communicator&);
template Machine bench_machine<double>(const RunConfig&, const Communicator&);

}  // namespace qnext
