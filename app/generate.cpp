// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "app/decoder.hpp"
#include "app/model_source.hpp"
#include "app/model_start.hpp"
#include "app/precision.hpp"
#include "app/sampling.hpp"
#include "app/trained_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace qnext {
namespace {

// Longer prompts come in pieces, so that activations stay small.
constexpr int largest_piece = 512;

void check(bool condition, const char* option, const std::string& value, const char* reason) {
  if (!condition) {
    throw InputError(fmt::format("{} {}: {}", option, value, reason));
  }
}

Sampling sampling_of(const GenerateOptions& o) {
  check(o.temperature >= 0.0, "--temperature", fmt::format("{}", o.temperature),
        "must not be negative");
  check(o.top_k >= 0, "--top-k", fmt::format("{}", o.top_k), "must not be negative");
  check(o.top_p > 0.0 && o.top_p <= 1.0, "--top-p", fmt::format("{}", o.top_p),
        "must be above 0 and at most 1");
  check(o.length >= 0, "--length", fmt::format("{}", o.length), "must not be negative");
  return {o.temperature, o.top_k, o.top_p, o.seed};
}

std::vector<int> prompt_of(const GenerateOptions& options, int vocabulary) {
  std::vector<int> prompt = options.tokens;
  if (prompt.empty()) {
    for (const unsigned char byte : options.prompt.empty() ? "\n" : options.prompt) {
      prompt.push_back(byte);
    }
  }
  for (const int token : prompt) {
    if (token < 0 || token >= vocabulary) {
      throw InputError(fmt::format("the prompt has the token {}; this model knows 0 to {}", token,
                                   vocabulary - 1));
    }
  }
  return prompt;
}

/// Bytes as they are, other tokens and all those of `as_numbers` as numbers.
class Text {
 public:
  explicit Text(bool as_numbers) : as_numbers_(as_numbers) {}

  void write(int token) {
    const std::string text = as_numbers_   ? fmt::format("{} ", token)
                             : token < 256 ? std::string(1, static_cast<char>(token))
                                           : fmt::format("<{}>", token);
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    ended_ = text == "\n";
  }

  /// What follows begins a line.
  void end() const {
    if (!ended_) {
      std::fputc('\n', stdout);
      std::fflush(stdout);
    }
  }

 private:
  bool as_numbers_;
  bool ended_ = false;
};

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

struct Generate {
  const GenerateOptions& options;
  const ModelSource& source;
  const Sampling& sampling;

  template <class Storage>
  Status operator()() const {
    const std::vector<int> prompt = prompt_of(options, source.model.vocabulary);
    TrainedModel<Storage> trained(source.model, false);
    start_weights(source.weights, 0, trained.table);
    const int length = static_cast<int>(prompt.size());
    Decoder<Storage> decoder(trained.model, length + options.length,
                             std::min(length, largest_piece));
    const Stopwatch prefill;
    std::vector<double> logits = decoder.feed(prompt);
    const double prefill_seconds = prefill.seconds();
    Text text(options.ids);
    for (const int token : prompt) {
      text.write(token);
    }
    const Stopwatch decode;
    for (int n = 0; n < options.length; ++n) {
      const int token = sample(logits, sampling, static_cast<std::uint64_t>(n));
      text.write(token);
      if (n + 1 < options.length) {
        logits = decoder.feed({token});
      }
    }
    text.end();
    std::fputs(
        fmt::format("prompt: {} tokens, {:.0f} tokens/s; written: {} tokens, {:.0f} tokens/s\n",
                    length, length / prefill_seconds, options.length,
                    options.length / decode.seconds())
            .c_str(),
        stderr);
    return Status::done;
  }
};

}  // namespace

Status generate(const GenerateOptions& options) {
  const Sampling sampling = sampling_of(options);
  ModelSource source = find_model(options.model, options.overrides, options.precision);
  source.model.recompute = Recompute::none;
  source.model.layer.experts.capacity.rule = Capacity::Rule::dropless;
  return with_storage(source.precision, Generate{options, source, sampling});
}

}  // namespace qnext
