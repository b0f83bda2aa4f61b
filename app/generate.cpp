// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "app/conversation.hpp"
#include "app/degrees.hpp"
#include "app/generation.hpp"
#include "app/generation_requests.hpp"
#include "app/model_source.hpp"
#include "app/model_start.hpp"
#include "app/pipeline_cut.hpp"
#include "app/precision.hpp"
#include "app/token_text.hpp"
#include "app/trained_model.hpp"
#include "core/profile.hpp"
#include "parallel/communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qnext {
namespace {

/// The terminal: every piece at once, and a line that ends.
class Terminal {
 public:
  void write(std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
    ended_ = piece.empty() ? ended_ : piece.back() == '\n';
  }

  /// What follows begins a line.
  void end() const {
    if (!ended_) {
      std::fputc('\n', stdout);
      std::fflush(stdout);
    }
  }

 private:
  bool ended_ = false;
};

struct Generate {
  const GenerateOptions& options;
  const ModelSource& source;
  const ProcessGrid& grid;
  const TokenText& text;
  const std::vector<GenerationRequest>& requests;

  template <class Storage>
  Status operator()() const {
    TrainedModel<Storage> trained(source.model, false, grid, chunks_of_stage());
    start_weights(source.weights, 0, trained.table, grid.world);
    Generation<Storage> generation(trained.model, grid, limits(), text);
    if (options.profile) {
      Profile::start();
    }
    if (!options.chat.empty()) {
      converse(generation);
    } else {
      options.jsonl.empty() ? write_text(generation) : write_lines(generation);
    }
    if (options.profile) {
      Profile::stop();
    }
    if (grid.world.first()) {
      const auto& pace = generation.pace();
      std::fputs(pace_line(pace).c_str(), stderr);
      if (options.profile) {
        std::fputs(Profile::table(pace.reading + pace.writing).c_str(), stderr);
      }
    }
    return Status::done;
  }

  // Of the longest prompt with what is written behind it.
  int longest() const {
    int most = options.chat.empty() ? 0 : options.context;
    for (const GenerationRequest& request : requests) {
      most = std::max(most, static_cast<int>(request.prompt.size()) + request.length);
    }
    return most;
  }

  DecoderLimits limits() const {
    const int ranks = grid.degrees.data, count = static_cast<int>(requests.size());
    return {.documents = std::max(1, std::min(options.batch, (count + ranks - 1) / ranks)),
            .capacity = std::max(1, longest() + options.drafts),
            .piece = std::max(1, std::min(options.prefill_chunk, longest())),
            .drafts = options.drafts,
            .marks = !options.chat.empty()};
  }

  // Whole layers, so that stages have about the same work.
  std::vector<Chunk> chunks_of_stage() const {
    const int stages = grid.degrees.pipeline;
    return PipelineCut{stages, 1, balanced_cut(source.model, stages, 1, longest())}.chunks_of(
        grid.place.pipeline);
  }

  void write_text(auto& generation) const {
    Terminal terminal;
    const bool first = grid.world.first();
    if (first) {
      for (const int token : requests.front().prompt) {
        terminal.write(text.text_of(token));
      }
    }
    generation.write(requests, [&](int, std::string_view piece) {
      if (first) {
        terminal.write(piece);
      }
    });
    if (first) {
      terminal.end();
    }
  }

  // Answers have other random numbers one after the other.
  void converse(auto& generation) const {
    Terminal terminal;
    const ChatStyle style = options.chat == "model" ? find_chat_style(source, options.tokenizer)
                                                    : chat_style_named(options.chat);
    Conversation conversation(text, style, options.system);
    GenerationRequest request = requests.front();
    request.end_tokens.push_back(conversation.end_token());
    const bool first = grid.world.first();
    for (; const auto words = next_line(grid.world); ++request.sampling.seed) {
      conversation.ask(*words, request);
      check_prompt(request.prompt, source.model.vocabulary);
      const int room = options.context - static_cast<int>(request.prompt.size());
      if (room <= 0) {
        throw InputError(fmt::format("the conversation has {} tokens, and room for {}: --context",
                                     request.prompt.size(), options.context));
      }
      request.length = std::min(options.length, room);
      const auto answers = generation.write({request}, [&](int, std::string_view piece) {
        if (first) {
          terminal.write(piece);
        }
      });
      if (first) {
        terminal.write("\n");
      }
      conversation.answer(answers.front());
    }
  }

  // As many prompts as fit are worked on, and their lines written when the last of them is done.
  void write_lines(auto& generation) const {
    const auto together = static_cast<std::size_t>(generation.most_requests());
    for (std::size_t i = 0; i < requests.size(); i += together) {
      const auto end = std::min(requests.size(), i + together);
      const auto answers = generation.write({requests.begin() + i, requests.begin() + end});
      if (grid.world.first()) {
        for (const GenerationAnswer& answer : answers) {
          std::fputs(line_of(answer).c_str(), stdout);
        }
        std::fflush(stdout);
      }
    }
  }

  // The first token behind a prompt is what the prompt is read for.
  static std::string pace_line(const auto& pace) {
    const auto rate = [](std::int64_t tokens, double seconds) {
      return tokens == 0 ? 0.0 : static_cast<double>(tokens) / seconds;
    };
    const std::string drafts = pace.drafted == 0
                                   ? ""
                                   : fmt::format("; drafts: {}, {:.0f} % accepted", pace.drafted,
                                                 100.0 * static_cast<double>(pace.accepted) /
                                                     static_cast<double>(pace.drafted));
    return fmt::format(
        "prompt: {} tokens, {:.0f} tokens/s; written: {} tokens, {:.0f} tokens/s{}\n", pace.read,
        rate(pace.read, pace.reading), pace.written, rate(pace.stepped, pace.writing), drafts);
  }
};

std::unique_ptr<TokenText> text_of(const GenerateOptions& options, const ModelSource& source) {
  auto tokenizer = find_tokenizer(source, options.tokenizer);
  auto text = tokenizer ? tokens_of(std::move(*tokenizer)) : bytes_as_tokens();
  return options.ids ? as_numbers(std::move(text)) : std::move(text);
}

ModelSource find_source(const GenerateOptions& options, const std::vector<std::string>& keys) {
  ModelSource source = find_model(options.model, keys, options.precision, options.adapter);
  source.model.recompute = Recompute::none;
  source.model.layer.experts.capacity.rule = Capacity::Rule::dropless;
  source.model.balance = {};
  // Only drafts want the MTP module.
  if (options.drafts == 0 && source.model.mtp_modules > 0) {
    source.model.mtp_modules = 0;
    source.weights.unused = "mtp.";
  }
  // A config.json does not say whether there is a module; its files do.
  const bool may_have_module = model_kind(options.model) == ModelKind::hugging_face;
  if (options.drafts > 0 && source.model.mtp_modules == 0) {
    if (!may_have_module) {
      throw InputError(
          fmt::format("--drafts {}: the model has no MTP module to draft with", options.drafts));
    }
    source.model.mtp_modules = 1;
  }
  return source;
}

}  // namespace

Status generate(const GenerateOptions& options, const Communicator& world) {
  std::vector<std::string> of_model = options.overrides;
  const auto of_job =
      std::stable_partition(of_model.begin(), of_model.end(),
                            [](const std::string& key) { return !key.starts_with("parallel."); });
  const std::vector<std::string> parallel(of_job, of_model.end());
  of_model.erase(of_job, of_model.end());
  const ModelSource source = find_source(options, of_model);
  const ProcessGrid grid = decoding_grid(parallel, source.model, world);
  if (!options.chat.empty() && grid.degrees.data > 1) {
    throw InputError(
        fmt::format("--chat: a conversation is one document, and {} ranks of parallel.data "
                    "have documents of their own",
                    grid.degrees.data));
  }
  const auto text = text_of(options, source);
  const int vocabulary = source.model.vocabulary;
  std::vector<GenerationRequest> requests{request_of(options, *text, source)};
  if (!options.jsonl.empty()) {
    requests = read_requests(options.jsonl, requests.front(), *text, vocabulary);
  }
  return with_storage(source.precision, Generate{options, source, grid, *text, requests});
}

}  // namespace qnext
