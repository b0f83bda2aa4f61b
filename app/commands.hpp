// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/require.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

class Communicator;

/// What the command line says, one struct for each command. Names are those of the options.
struct TrainOptions {
  std::string deck;
  std::vector<std::string> overrides;  // key=value
  bool profile = false;                // print where the time went
};

struct PlanOptions {
  std::string deck;
  std::vector<std::string> overrides;
  int ranks = 0;        // of a job that need not be there; 0: what the deck says
  std::string machine;  // file of rates that a step is predicted with; empty: none
  int layouts = 0;      // print so many of the best layouts of these ranks
};

struct GenerateOptions {
  std::string model;                   // deck, run folder, checkpoint or Hugging Face folder
  std::vector<std::string> overrides;  // of a deck, and parallel.* of this job
  std::string prompt;
  std::string tokenizer;    // a tokenizer.json or its folder; empty: that of the model
  std::vector<int> tokens;  // the prompt as numbers instead
  std::string jsonl;        // a file of prompts instead, one on each line
  std::string chat;         // a conversation instead: model | instruct | thinking
  std::string system;       // its first message
  int context = 8192;       // tokens of a conversation, at most
  int batch = 8;            // documents that a group of ranks works on at a time
  int drafts = 0;           // tokens that the MTP module drafts at once; 0: none
  int prefill_chunk = 512;  // tokens of a prompt that are read at once
  int length = 200;
  double temperature = 0.8;  // 0: the most probable token
  int top_k = 0;             // 0: all
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  std::uint64_t seed = 1;
  std::vector<std::string> stop;  // texts that end the text
  std::vector<int> stop_tokens;
  bool ignore_end = false;  // write on behind the end token of the model
  std::string precision;    // empty: that of the checkpoint
  std::string adapter;      // folder of PEFT beside the weights of a Hugging Face folder
  bool ids = false;         // print numbers instead of bytes
  bool profile = false;     // print where the time went
};

struct CompareOptions {
  std::string model;   // Hugging Face folder
  std::string golden;  // HDF5 file
  std::string precision = "float";
  int chunk = 64;
  // What is judged in bf16 with the experts of the file; see Bf16Bounds::replayed.
  double divergence = 4e-2;
  double loss = 7e-2;
  double cosine = 0.975;
};

struct ConvertOptions {
  std::string from;           // Hugging Face folder; or deck, run folder or checkpoint
  std::string to;             // checkpoint; or Hugging Face folder
  std::string dtype;          // of all tensors of the folder: bf16 | half | float | double
  std::string shard_size;     // most bytes of a file of the folder
  std::string adapter = {};   // folder of PEFT that is merged into a Hugging Face folder
  bool adapter_only = false;  // the adapters of a run alone, as a folder of PEFT
};

struct BenchOptions {
  std::string what;  // peak | kernels | step | decode | all | machine
  std::string deck;
  std::vector<std::string> overrides;
};

struct EvaluateOptions {
  std::string what = {};       // logits | perplexity | loglikelihood | choice | mmlu
  std::string model = {};      // deck, run folder, checkpoint or Hugging Face folder
  std::string data = {};       // file or folder, as `what` wants it
  std::string tokenizer = {};  // empty: that of the model's folder, or bytes
  std::string precision = {};  // empty: that of the checkpoint
  std::string adapter = {};    // folder of PEFT beside the weights of a Hugging Face folder
  std::string separator = {};  // texts: a line that is just this ends a document
  std::string output = {};     // file for the results, JSON
  std::string write = {};      // logits: file for those of this model
  double max_kl = 2e-4;        // logits: nats
  int window = 2048;           // tokens that the model sees at once
  int stride = 0;              // perplexity: tokens between windows; 0: window - 1
  int shots = 5;               // mmlu
  std::int64_t limit = 0;      // documents, lines, or questions of a subject; 0: all

  /// Keys of the section parallel: how the ranks of this job share the model.
  std::vector<std::string> overrides = {};
};

struct TokenizeOptions {
  std::string from;       // text or JSONL, or a folder of such files
  std::string to;         // prefix of the token files
  std::string tokenizer;  // tokenizer.json or its folder
  std::string separator;  // texts: a line that is just this ends a document
  std::string chat;       // instruct | thinking; empty: what the tokenizer's folder says
  std::string end = "<|endoftext|>";  // token behind each document but chats; none: none
  int threads = 0;                    // 0: one a core
  double save_every = 256;            // MB of text; behind them a kill loses nothing
};

struct InfoOptions {
  std::string path;
  bool tensors = false;  // a line for each tensor, with its hash
};

/// Each command returns the status of the program, or throws an Error that carries it.
Status train(const TrainOptions& options, const Communicator& world);
Status plan(const PlanOptions& options);
Status generate(const GenerateOptions& options, const Communicator& world);
Status compare(const CompareOptions& options);
Status convert(const ConvertOptions& options);
Status bench(const BenchOptions& options, const Communicator& world);
Status evaluate(const EvaluateOptions& options, const Communicator& world);
Status tokenize(const TokenizeOptions& options);
Status info(const InfoOptions& options);

}  // namespace qnext
