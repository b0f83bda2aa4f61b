// SPDX-License-Identifier: Apache-2.0
#include "app/bench_decode.hpp"

#include "app/decoder.hpp"
#include "core/peak.hpp"
#include "core/random.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

namespace qnext {
namespace {

constexpr int prompt = 512, context = 64, steps = 100;
constexpr int passes = 9;
constexpr std::int64_t beyond_caches = std::int64_t{1} << 30;

struct Seconds {
  double best;
  double median;
};

// The logits that `run` leaves on the host end it: without them nothing can be sampled.
Seconds seconds_of(const std::function<void()>& prepare, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  for (int pass = 0; pass <= passes; ++pass) {
    prepare();
    const auto begin = Clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  seconds.erase(seconds.begin());  // finds cold caches and primitives that are not there yet
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[passes / 2]};
}

// What one token reads: all weights but the experts that are not chosen and the other rows of the
// embedding.
double weight_bytes(const ModelConfig& model, const ParameterTable& table) {
  double bytes = 0.0;
  for (const Parameter& row : table.rows()) {
    if (!row.alias_of.empty()) {
      continue;
    }
    double elements = static_cast<double>(row.elements());
    if (row.name == "model.embed_tokens.weight" && !model.tied_head) {
      elements = model.width;
    } else if (row.name.find(".mlp.experts.") != std::string::npos) {
      elements *=
          static_cast<double>(model.layer.experts.experts_per_token) / model.layer.experts.experts;
    }
    bytes += elements * size_of(row.type);
  }
  return bytes;
}

// What a step reads and writes beside them: recurrent states both ways, keys and values of `length`
// tokens one way.
template <class Storage>
double state_bytes(const ModelConfig& model, int length) {
  const auto& net = model.layer.delta_net;
  const auto& attention = model.layer.attention;
  double bytes = 0.0;
  for (const Mixer mixer : model.mixers) {
    bytes +=
        mixer == Mixer::delta_net
            ? 2.0 * sizeof(Accum<Storage>) * net.value_heads * net.key_width * net.value_width
            : 2.0 * sizeof(Storage) * length * attention.key_value_heads * attention.head_width;
  }
  return bytes;
}

std::vector<int> random_tokens(int vocabulary) {
  std::vector<int> tokens(prompt);
  const std::uint64_t key = random_key(3, "bench");
  for (int i = 0; i < prompt; ++i) {
    tokens[i] = static_cast<int>(random_bits(key, i) % vocabulary);
  }
  return tokens;
}

}  // namespace

template <class Storage>
std::string bench_decode(const RunConfig& config) {
  ModelConfig model_config = config.model;
  model_config.mtp_modules = 0;
  const ProcessGrid grid;
  ParameterTable table;
  const Model<Storage> model(model_config, grid, table);
  table.lay_out(false);
  initialise(table, config.run.seed);
  Decoder<Storage> decoder(model, grid, {.documents = 1, .capacity = prompt, .piece = prompt});
  const std::vector<int> tokens = random_tokens(model_config.vocabulary);
  const auto read = [&](int count) {
    decoder.begin(0);
    decoder.read(0, {tokens.begin(), tokens.begin() + count});
  };
  const Seconds prefill = seconds_of([] {}, [&] { read(prompt); });
  const Seconds decode = seconds_of([&] { read(context); },
                                    [&] {
                                      for (int i = context; i < context + steps; ++i) {
                                        const std::vector<typename Decoder<Storage>::Next> next{
                                            {0, std::vector<int>(1, tokens[i])}};
                                        decoder.step(next);
                                      }
                                    });
  const double weights = weight_bytes(model_config, table);
  const double states = state_bytes<Storage>(model_config, context + steps / 2);
  const double rate = (weights + states) * steps / decode.best;
  const double memory = measured_read_rate(beyond_caches);
  const double again = measured_read_rate(static_cast<std::int64_t>(weights + states));
  return fmt::format(
      "prefill of {}: {:.0f} tokens/s at best, {:.0f} in the median of {}\n"
      "decode at batch 1: {:.1f} tokens/s at best, {:.1f} in the median of {} times {}\n"
      "a token reads {:.1f} MB of weights and {:.1f} MB of states: {:.1f} GB/s\n"
      "memory is read at {:.1f} GB/s, {:.0f}% of which that is, and as few bytes as those again "
      "and again at {:.1f} GB/s, {:.0f}%\n",
      prompt, prompt / prefill.best, prompt / prefill.median, passes, steps / decode.best,
      steps / decode.median, passes, steps, 1e-6 * weights, 1e-6 * states, 1e-9 * rate,
      1e-9 * memory, 100.0 * rate / memory, 1e-9 * again, 100.0 * rate / again);
}

template std::string bench_decode<bf16>(const RunConfig&);
template std::string bench_decode<float>(const RunConfig&);
template std::string bench_decode<double>(const RunConfig&);

}  // namespace qnext
