// SPDX-License-Identifier: Apache-2.0
#include "app/run_config.hpp"
#include "io/deck.hpp"
#include "tests/fuzz/target.hpp"

namespace qnext::fuzz {

std::vector<std::string> seeds() {
  const std::string model =
      "model:\n  vocabulary: 256\n  width: 64\n  layers: 4\n"
      "  mixers: {full_attention_every: 4}\n  tied_head: false\n"
      "  attention: {heads: 4, key_value_heads: 2, head_width: 16}\n"
      "  delta_net: {key_heads: 2, value_heads: 4, key_width: 16, value_width: 16}\n"
      "  experts:\n    count: 8\n    per_token: 2\n    width: 32\n    shared_width: 32\n"
      "    balance_loss: {form: megatron, scope: global, coefficient: 1.0e-3}\n"
      "  multi_token_prediction: {modules: 1, loss: 0.1}\n";
  return {"run: {name: a, steps: 3}\n" + model +
              "data: {train: a.txt, sequence: 32, batch: 4, microbatch: 2}\n"
              "optimizer:\n  learning_rate: {peak: 1.0e-3, schedule: cosine, warmup: 1}\n"
              "  betas: [0.9, 0.95]\n",
          "# a comment\nrun:\n  name: \"b\"\n  steps: 12\n  precision: bf16\n" + model +
              "data:\n  train:\n    - {path: a.txt, weight: 2}\n    - {path: 'b.bin'}\n"
              "  evaluate: {last_fraction: 0.1}\n  sequence: 8\n  batch: 8\n"
              "optimizer: {learning_rate: {peak: 1e-4, schedule: warmup_stable_decay, decay: 2}}\n"
              "parallel: {tensor: 2, pipeline: 2, data: 2}\noutput: {checkpoint_every: {minutes: "
              "1}}\n",
          // More ranks than a number holds.
          "run: {name: c, steps: 1}\n" + model +
              "data: {train: a.txt, sequence: 32, batch: 4}\n"
              "optimizer: {learning_rate: {peak: 1.0e-3}}\n"
              "parallel: {tensor: 2, data: 2147483647}\n",
          // A message would offer more degrees than can be counted.
          "run: {name: d, steps: 1}\nmodel:\n  vocabulary: 8\n  width: 8\n  layers: 1\n"
          "  attention: {heads: 1, key_value_heads: 1, head_width: 8}\n"
          "  delta_net: {key_heads: 1, value_heads: 1, key_width: 8, value_width: 8}\n"
          "  experts: {count: 2147483647, per_token: 1, width: 8}\n"
          "data: {train: a.txt, sequence: 32, batch: 4}\n"
          "optimizer: {learning_rate: {peak: 1.0e-3}}\nparallel: {expert: 5}\n"};
}

std::vector<std::string> words() {
  return {"{",
          "}",
          "[",
          "]",
          ": ",
          "- ",
          "\n",
          "\n  ",
          "&a",
          "*a",
          "<<: ",
          "|\n",
          ">\n",
          "!!int ",
          "\"",
          "'",
          "~",
          "null",
          ".inf",
          ".nan",
          "1e400",
          "0x10",
          "auto",
          "? ",
          "---\n",
          "...\n",
          "\t",
          "\xff",
          "stage_layers: [1, 3]",
          "chunks: 2"};
}

}  // namespace qnext::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qnext;
  return fuzz::refuse_or_accept([&] {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const Deck deck = Deck::parse(text, "deck.yaml");
    read_run_config(deck);
    // What is taken is taken again with every default written out, and says the same.
    const std::string resolved = deck.resolved();
    const Deck again = Deck::parse(resolved, "resolved.yaml");
    read_run_config(again);
    if (again.resolved() != resolved) {
      throw std::logic_error("a deck changes when it is written and read");
    }
  });
}
