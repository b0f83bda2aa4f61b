// SPDX-License-Identifier: Apache-2.0
#include "app/options.hpp"

#include "core/version.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string_view>

namespace qnext {
namespace {

constexpr const char* footer =
    "Flags of Kokkos (--kokkos-threads=2, ...) are passed on; --kokkos-help lists them.\n"
    "Exit status: 0 done, 1 a defect of qnext, 2 the input is wrong, 3 the environment failed,\n"
    "4 a number went bad, 75 interrupted and resumable.";

std::string version_text(const std::string& mpi) {
  const Version v = version();
  return fmt::format("qnext {}\ncommit {}\nbackend {}\nMPI {}\ncompiler {}\nflags {}", v.version,
                     v.commit, v.backend, mpi, v.compiler, v.flags);
}

template <class Options>
void add_deck(CLI::App& command, Options& options) {
  command.add_option("deck", options.deck, "input deck, a YAML file")->required();
  command.add_option("overrides", options.overrides, "keys to replace: run.steps=10");
}

void add_train(CLI::App& command, TrainOptions& options) {
  add_deck(command, options);
  command.add_flag("--profile", options.profile, "print the time of each kernel at the end");
}

void add_plan(CLI::App& command, PlanOptions& options) {
  add_deck(command, options);
  command.add_option("--ranks", options.ranks, "of a job that need not be there")
      ->check(CLI::PositiveNumber);
  command.add_option("--machine", options.machine,
                     "rates of one rank, a file of `qnext bench machine`: predicts the step");
  command
      .add_option("--layouts", options.layouts,
                  "try all ways to share the ranks out, whatever the degrees of the deck: print "
                  "the plan of "
                  "the best and so many of them")
      ->check(CLI::PositiveNumber);
}

void add_generate(CLI::App& command, GenerateOptions& options) {
  command.add_option("model", options.model, "deck, run folder, checkpoint or Hugging Face folder")
      ->required();
  command.add_option("overrides", options.overrides,
                     "keys of the deck to replace, run.name=b, and how the ranks of this job share "
                     "the model: parallel.tensor=2");
  command.add_option("--adapter", options.adapter,
                     "folder of PEFT whose adapters come beside a Hugging Face folder");
  auto* const prompt = command.add_option("--prompt", options.prompt, "text to go on from");
  command.add_option("--tokenizer", options.tokenizer,
                     "tokenizer.json, or a folder that has it; without one, in the folder of the "
                     "model neither, bytes are tokens");
  auto* const tokens =
      command.add_option("--tokens", options.tokens, "the prompt as numbers: 1,2,3")
          ->delimiter(',')
          ->excludes(prompt);
  command
      .add_option("--jsonl", options.jsonl,
                  "a file of prompts, {\"prompt\": \"...\"} or {\"tokens\": [...]} on each line, "
                  "with length, temperature, ... of its own; writes such lines")
      ->excludes(prompt)
      ->excludes(tokens);
  auto* const chat = command.add_flag(
      "--chat{model}", options.chat,
      "a conversation: each line of the input is answered, until it ends; --chat=instruct and "
      "--chat=thinking are other forms than that of the model's chat template");
  chat->excludes(prompt)->excludes(tokens)->excludes("--jsonl");
  command.add_option("--system", options.system, "the message in front of a conversation")
      ->needs(chat);
  command.add_option("--context", options.context, "tokens that a conversation has room for")
      ->needs(chat)
      ->capture_default_str();
  command.add_option("--batch", options.batch, "documents that are worked on at a time")
      ->capture_default_str();
  command
      .add_option("--drafts", options.drafts,
                  "tokens that the MTP module drafts at once, up to 4; 0: none")
      ->capture_default_str();
  command
      .add_option("--prefill-chunk", options.prefill_chunk,
                  "tokens of a prompt that are read at once")
      ->capture_default_str();
  command.add_option("--length", options.length, "tokens to write")->capture_default_str();
  command.add_option("--temperature", options.temperature, "0: always the most probable token")
      ->capture_default_str();
  command.add_option("--top-k", options.top_k, "only the k most probable tokens; 0: all")
      ->capture_default_str();
  command
      .add_option("--top-p", options.top_p, "only the most probable tokens that hold this share")
      ->capture_default_str();
  command
      .add_option("--min-p", options.min_p,
                  "only tokens with this share of the largest probability; 0: all")
      ->capture_default_str();
  command
      .add_option("--repetition-penalty", options.repetition_penalty,
                  "divides positive logits of tokens that came before, multiplies negative ones")
      ->capture_default_str();
  command
      .add_option("--presence-penalty", options.presence_penalty,
                  "is taken from the logits of tokens that were written")
      ->capture_default_str();
  command.add_option("--seed", options.seed, "of the random numbers")->capture_default_str();
  command.add_option("--stop", options.stop, "a text that ends the text; may be given again")
      ->allow_extra_args(false);
  command.add_option("--stop-tokens", options.stop_tokens, "tokens that end the text: 1,2")
      ->delimiter(',');
  command.add_flag("--ignore-end", options.ignore_end, "write on behind the model's end token");
  command.add_option(
      "--precision", options.precision,
      "double, float or bf16; if absent as in the checkpoint, or float for a Hugging Face folder");
  command.add_flag("--ids", options.ids, "print numbers instead of bytes")->excludes(chat);
  command.add_flag("--profile", options.profile,
                   "print the time of each kernel and copy at the end");
}

void add_compare(CLI::App& command, CompareOptions& options) {
  command.add_option("model", options.model, "Hugging Face folder")->required();
  command.add_option("golden", options.golden, "file of golden data, HDF5")->required();
  command.add_option("--precision", options.precision, "double, float or bf16")
      ->capture_default_str();
  command.add_option("--chunk", options.chunk, "chunk of the delta rule")->capture_default_str();
  command
      .add_option("--divergence", options.divergence,
                  "bf16, experts of the file: largest divergence of logits, nats")
      ->capture_default_str();
  command
      .add_option("--loss", options.loss, "bf16, experts of the file: largest difference of a loss")
      ->capture_default_str();
  command
      .add_option("--cosine", options.cosine,
                  "bf16, experts of the file: least cosine of all gradients together")
      ->capture_default_str();
}

void add_convert(CLI::App& command, ConvertOptions& options) {
  command
      .add_option("from", options.from,
                  "Hugging Face folder; or checkpoint, run folder or deck of a run")
      ->required();
  command
      .add_option("to", options.to,
                  "checkpoint; or Hugging Face folder, of a checkpoint or with --adapter")
      ->required();
  command.add_option("--dtype", options.dtype,
                     "of all tensors of the folder: bf16, half, float or double; as in the folder "
                     "that the model is from, or in the checkpoint, if absent");
  auto* const adapter = command.add_option(
      "--adapter", options.adapter,
      "folder of PEFT whose adapters are merged into the weights of a Hugging Face folder");
  command
      .add_flag("--adapter-only", options.adapter_only,
                "write the adapters of a run alone, as a folder of PEFT; else they are merged")
      ->excludes(adapter);
  command.add_option("--shard-size", options.shard_size,
                     "most bytes of a file of the folder; 5 GB if absent");
}

void add_bench(CLI::App& command, BenchOptions& options) {
  command.add_option("what", options.what, "peak, kernels, step, decode, all or machine")
      ->required();
  command.add_option("deck", options.deck, "deck whose shapes are measured")->required();
  command.add_option("overrides", options.overrides, "keys to replace: run.precision=bf16");
}

void add_evaluate(CLI::App& command, EvaluateOptions& options) {
  command.add_option("what", options.what, "logits, perplexity, loglikelihood, choice or mmlu")
      ->required();
  command.add_option("model", options.model, "deck, run folder, checkpoint or Hugging Face folder")
      ->required();
  command
      .add_option("data", options.data,
                  "golden logits (JSONL or HDF5); text, JSONL or token files; JSONL of contexts; "
                  "the folder of MMLU")
      ->required();
  command.add_option("overrides", options.overrides,
                     "how the ranks of this job share the model: parallel.expert=2");
  command.add_option("--tokenizer", options.tokenizer,
                     "tokenizer.json or its folder; else that of the model's folder, or bytes");
  command.add_option(
      "--precision", options.precision,
      "double, float or bf16; if absent as in the checkpoint, or float for a Hugging Face folder");
  command.add_option("--adapter", options.adapter,
                     "folder of PEFT whose adapters come beside a Hugging Face folder");
  command.add_option("--output", options.output, "file for the results, JSON");
  command.add_option("--window", options.window, "tokens that the model sees at once")
      ->capture_default_str();
  command
      .add_option("--limit", options.limit, "documents, lines, or questions of a subject; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--max-kl", options.max_kl,
                  "logits: largest divergence of a position, nats; above it the status is 4")
      ->capture_default_str();
  command.add_option("--write", options.write, "logits: file for those of this model");
  command
      .add_option("--stride", options.stride,
                  "perplexity: tokens between windows; 0: one less than --window")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--separator", options.separator,
                     "perplexity: a line that is just this ends a document of a text");
  command.add_option("--shots", options.shots, "mmlu: examples before each question")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

void add_tokenize(CLI::App& command, TokenizeOptions& options) {
  command
      .add_option("from", options.from,
                  "text or JSONL (text; messages; prompt and completion), packed with gzip or zstd "
                  "or not, or a folder of such files")
      ->required();
  command.add_option("to", options.to, "prefix of the token files: TO.bin, TO.idx, TO.mask")
      ->required();
  command.add_option("--tokenizer", options.tokenizer, "tokenizer.json, or a folder that has one")
      ->required();
  command.add_option("--separator", options.separator,
                     "texts: a line that is just this ends a document; else a file is one");
  command.add_option("--chat", options.chat,
                     "form of chats: instruct or thinking; as in the tokenizer's folder if absent");
  command.add_option("--end", options.end, "token behind each document that is no chat, or none")
      ->capture_default_str();
  command.add_option("--threads", options.threads, "0: one for each core")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--save-every", options.save_every,
                  "MB of text, behind which a run that was killed goes on")
      ->capture_default_str();
}

void add_info(CLI::App& command, InfoOptions& options) {
  command.add_option("path", options.path, "file or folder")->required();
  command.add_flag("--tensors", options.tensors,
                   "name each tensor of a model: name, type, extents, XXH3-128");
}

// A command whose options become those of the line where it is the one that is asked for.
template <class Options>
void add_command(CLI::App& program, CommandLine& line, const char* name, const char* what,
                 void (*add)(CLI::App&, Options&)) {
  const auto options = std::make_shared<Options>();
  CLI::App* const command = program.add_subcommand(name, what);
  add(*command, *options);
  command->callback([options, &line] { line.command = *options; });
}

bool is_kokkos_flag(std::string_view argument) {
  return argument.rfind("--kokkos-", 0) == 0;
}

}  // namespace

CommandLine parse_command_line(int argc, const char* const* argv, const std::string& mpi) {
  CommandLine line;
  std::vector<std::string> arguments;  // CLI11 takes them in reverse order
  for (int i = argc - 1; i > 0; --i) {
    auto& list = is_kokkos_flag(argv[i]) ? line.kokkos : arguments;
    list.emplace_back(argv[i]);
  }
  if (std::count(line.kokkos.begin(), line.kokkos.end(), "--kokkos-help") > 0) {
    return line;
  }

  CLI::App program{"Trains and decodes Qwen3-Next models from an input deck.", "qnext"};
  program.set_version_flag("--version", version_text(mpi));
  program.require_subcommand(1);
  program.footer(footer);
  add_command(program, line, "train", "pre-train; resumes by itself from the run folder",
              add_train);
  add_command(program, line, "plan",
              "print parameters, memory and FLOPs of a deck; allocates nothing", add_plan);
  add_command(program, line, "generate", "write text behind a prompt", add_generate);
  add_command(program, line, "compare",
              "hold a model against golden data; status 4 if a bound is passed", add_compare);
  add_command(program, line, "convert",
              "a Hugging Face folder becomes a checkpoint, or a checkpoint such a folder",
              add_convert);
  add_command(program, line, "bench", "measure kernels and the step against this machine",
              add_bench);
  add_command(program, line, "evaluate", "hold a model against logits, texts and questions",
              add_evaluate);
  add_command(program, line, "tokenize", "turn text and JSONL into token files that training reads",
              add_tokenize);
  add_command(program, line, "info", "say what a checkpoint, run or model folder contains",
              add_info);

  try {
    program.parse(arguments);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != static_cast<int>(CLI::ExitCodes::Success)) {
      throw InputError(fmt::format("{}; see qnext --help", error.what()));
    }
    program.exit(error);  // prints the help or the version that was asked for
  }
  return line;
}

}  // namespace qnext
