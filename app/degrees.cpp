// SPDX-License-Identifier: Apache-2.0
#include "app/degrees.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

namespace qnext {
namespace {

template <class Kind>
bool any(const std::vector<Kind>& kinds, Kind kind) {
  return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

// What stands in the way of a tensor degree, or nothing.
std::string tensor_obstacle(int tensor, const ModelConfig& model, int sequence) {
  const auto& attention = model.layer.attention;
  const auto& experts = model.layer.experts;
  const bool mtp = model.mtp_modules > 0;
  if (mtp || any(model.mixers, Mixer::attention)) {
    if (attention.heads % tensor != 0) {
      return fmt::format("attention.heads, {}, is no multiple of it", attention.heads);
    }
    const int shared = attention.key_value_heads;
    if (shared % tensor != 0 && tensor % shared != 0) {
      return fmt::format("attention.key_value_heads, {}, is no multiple and no divisor of it",
                         shared);
    }
  }
  const int key_heads = model.layer.delta_net.key_heads;
  if (any(model.mixers, Mixer::delta_net) && key_heads % tensor != 0) {
    return fmt::format("delta_net.key_heads, {}, is no multiple of it", key_heads);
  }
  const bool has_experts = mtp || any(model.mlps, Mlp::experts);
  struct Size {
    const char* key;
    int size;
  };
  for (const Size& divided :
       {Size{"model.vocabulary", model.vocabulary},
        Size{"dense_width", any(model.mlps, Mlp::dense) ? model.layer.dense.width : tensor},
        Size{"experts.shared_width",
             has_experts && experts.shared_width > 0 ? experts.shared_width : tensor},
        Size{"data.sequence", sequence}}) {
    if (divided.size < tensor) {
      return fmt::format("{}, {}, is less", divided.key, divided.size);
    }
  }
  return "";
}

constexpr int largest_named = 1 << 16;  // of degrees that a message offers

// "1, 2, 4": the numbers up to n that divide it.
std::string divisors(int n) {
  std::string text;
  for (int d = 1; d <= std::min(n, largest_named); ++d) {
    if (n % d == 0) {
      text += fmt::format("{}{}", d == 1 ? "" : ", ", d);
    }
  }
  return text;
}

int read_tensor(const Section& deck, const ModelConfig& model, int sequence) {
  const int tensor = deck.get("tensor", 1);
  deck.check(tensor > 0, "tensor", "must be positive");
  const std::string reason = tensor_obstacle(tensor, model, sequence);
  if (reason.empty()) {
    return tensor;
  }
  std::string fitting;
  const int most = std::min(std::max(tensor, model.layer.attention.heads), largest_named);
  for (int degree = 1; degree <= most; ++degree) {
    if (tensor_obstacle(degree, model, sequence).empty()) {
      fitting += fmt::format("{}{}", fitting.empty() ? "" : ", ", degree);
    }
  }
  deck.check(false, "tensor", fmt::format("{}; what divides this model: {}", reason, fitting));
  return tensor;
}

// What stands in the way of a context degree, or nothing.
std::string context_obstacle(int context, int tensor, const ModelConfig& model, int sequence) {
  if (sequence % context != 0) {
    return fmt::format("data.sequence, {}, is no multiple of it", sequence);
  }
  const int piece = sequence / context;
  const int tail = any(model.mixers, Mixer::delta_net) ? model.layer.delta_net.conv_taps - 1 : 1;
  if (context > 1 && piece < tail) {
    return fmt::format(
        "a rank would hold {} tokens of a sequence, less than delta_net.conv_taps "
        "- 1, {}",
        piece, tail);
  }
  if (context > 1 && piece < tensor) {
    return fmt::format("a rank would hold {} tokens of a sequence, less than tensor, {}", piece,
                       tensor);
  }
  return "";
}

int read_context(const Section& deck, int tensor, const ModelConfig& model, int sequence) {
  const int context = deck.get("context", 1);
  deck.check(context > 0, "context", "must be positive");
  const std::string reason = context_obstacle(context, tensor, model, sequence);
  if (reason.empty()) {
    return context;
  }
  constexpr int always_named = 64;
  std::string fitting;
  const int most = std::min(std::max(context, always_named), largest_named);
  for (int degree = 1; degree <= most; ++degree) {
    if (context_obstacle(degree, tensor, model, sequence).empty()) {
      fitting += fmt::format("{}{}", fitting.empty() ? "" : ", ", degree);
    }
  }
  deck.check(false, "context", fmt::format("{}; these do: {}", reason, fitting));
  return context;
}

int read_pipeline(const Section& deck, int layers) {
  const int pipeline = deck.get("pipeline", 1);
  deck.check(pipeline >= 1 && pipeline <= layers + 1, "pipeline",
             fmt::format("must be from 1 to {}: every stage but the last, which has the head, has "
                         "a layer",
                         layers + 1));
  return pipeline;
}

// 0 where neither the deck nor a job says it.
int read_data(const Section& deck, const Degrees& others, std::optional<int> ranks) {
  const int data = deck.get("data", 0);
  deck.check(data >= 0, "data", "must not be negative; 0: all ranks of the job");
  constexpr double most_ranks = 1 << 24;  // products of degrees stay whole numbers
  deck.check(
      1.0 * others.tensor * others.context * others.pipeline * std::max(data, 1) <= most_ranks,
      "data",
      fmt::format("{} x {} x {} x {} ranks of tensor x context x pipeline x data are above {}",
                  others.tensor, others.context, others.pipeline, data, most_ranks));
  if (!ranks) {
    return data;
  }
  const int used = others.tensor * others.context * others.pipeline;
  const char* const key = others.tensor > 1    ? "tensor"
                          : others.context > 1 ? "context"
                                               : "pipeline";
  deck.check(*ranks % used == 0, key,
             fmt::format("the job has {} ranks, which is no multiple of {}", *ranks,
                         used == others.tensor ? "it"
                                               : fmt::format("the {} ranks of tensor x "
                                                             "context x pipeline",
                                                             used)));
  const int left = *ranks / used;
  deck.check(data == 0 || data == left, "data",
             used == 1 ? fmt::format("the job has {} ranks; data must be that, or 0", *ranks)
                       : fmt::format("the job has {} ranks for {} of tensor x context x pipeline; "
                                     "data must be {}, or 0",
                                     *ranks, used, left));
  return left;
}

// Consecutive ranks of a stage that share the experts out. `others.data` is 0 where it is not
// known.
int read_expert(const Section& deck, int experts, const Degrees& others) {
  const int expert = deck.get("expert", 1);
  const int stage = others.tensor * others.context * others.data;
  const int shared = stage > 0 ? std::gcd(experts, stage) : experts;
  deck.check(
      expert > 0 && shared % expert == 0, "expert",
      fmt::format(
          "must divide the {} experts{}; these do: {}", experts,
          stage > 0 ? fmt::format(" and the {} ranks of tensor x context x data", stage) : "",
          divisors(shared)));
  return expert;
}

}  // namespace

bool fits(const Degrees& d, const ModelConfig& model, const SharedData& data) {
  return tensor_obstacle(d.tensor, model, data.sequence).empty() &&
         context_obstacle(d.context, d.tensor, model, data.sequence).empty() &&
         d.pipeline <= model.layers() + 1 && data.microbatches() % d.data == 0 &&
         std::gcd(std::max(model.layer.experts.experts, 1), d.tensor * d.context * d.data) %
                 d.expert ==
             0;
}

Degrees read_degrees(const Section& parallel, const ModelConfig& model, const SharedData& data,
                     std::optional<int> ranks) {
  Degrees degrees;
  degrees.tensor = read_tensor(parallel, model, data.sequence);
  degrees.context = read_context(parallel, degrees.tensor, model, data.sequence);
  degrees.pipeline = read_pipeline(parallel, model.layers());
  degrees.data = read_data(parallel, degrees, ranks);
  degrees.expert = read_expert(parallel, model.layer.experts.experts, degrees);
  if (degrees.data == 0) {
    const int neighbours = degrees.tensor * degrees.context;
    degrees.data = degrees.expert / std::gcd(degrees.expert, neighbours);
  }
  const int microbatches = data.microbatches();
  parallel.check(
      microbatches % degrees.data == 0, "data",
      fmt::format("{} data ranks cannot share the {} microbatches of a step (data.batch {} / "
                  "data.microbatch {}) evenly; these can: {}",
                  degrees.data, microbatches, data.batch, data.microbatch, divisors(microbatches)));
  return degrees;
}

Degrees read_decoding_degrees(const Section& parallel, const ModelConfig& model, int ranks) {
  Degrees degrees;
  degrees.tensor = read_tensor(parallel, model, std::numeric_limits<int>::max());
  degrees.context = parallel.get("context", 1);
  parallel.check(degrees.context > 0, "context", "must be positive");
  degrees.pipeline = read_pipeline(parallel, model.layers());
  degrees.data = degrees.context * read_data(parallel, degrees, ranks);
  degrees.context = 1;
  degrees.expert = read_expert(parallel, model.layer.experts.experts, degrees);
  return degrees;
}

ProcessGrid decoding_grid(const std::vector<std::string>& keys, const ModelConfig& model,
                          const Communicator& world) {
  const Deck deck = Deck::parse("{}", "command line", keys);
  const Degrees degrees = read_decoding_degrees(deck.section("parallel"), model, world.ranks());
  deck.refuse_unread();
  return ProcessGrid(degrees, world);
}

}  // namespace qnext
