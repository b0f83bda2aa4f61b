// SPDX-License-Identifier: Apache-2.0
#include "app/machine.hpp"

#include "app/bytes.hpp"
#include "app/precision.hpp"
#include "io/deck.hpp"

#include <fmt/format.h>

namespace qnext {
namespace {

double positive(const Section& section, const char* key) {
  const double value = section.get<double>(key);
  section.check(value > 0.0, key, "must be positive");
  return value;
}

}  // namespace

Machine Machine::typical() {
  Machine machine;
  machine.delta_net = machine.attention = machine.experts = machine.dense = machine.logits = 1e11;
  machine.copy = 1e10;
  machine.messages = 4e9;
  machine.latency = 1e-5;
  return machine;
}

Machine Machine::read(const std::string& path) {
  const Deck deck = Deck::read(path);
  const Section measured = deck.section("measured"), rates = deck.section("rates");
  Machine machine;
  machine.backend = measured.get<std::string>("backend");
  machine.ranks = measured.get<int>("ranks");
  machine.threads = measured.get<int>("threads");
  machine.precision = measured.choose<DataType>(
      "precision",
      {{"double", DataType::float64}, {"float", DataType::float32}, {"bf16", DataType::bf16}});
  machine.delta_net = positive(rates, "delta_net");
  machine.attention = positive(rates, "attention");
  machine.experts = positive(rates, "experts");
  machine.dense = positive(rates, "dense");
  machine.logits = positive(rates, "logits");
  machine.copy = positive(rates, "copy");
  machine.messages = positive(rates, "messages");
  machine.latency = positive(rates, "latency");
  machine.overlap = rates.get("overlap", 0.0);
  rates.check(machine.overlap >= 0.0 && machine.overlap <= 1.0, "overlap", "must be from 0 to 1");
  const auto memory = parse_bytes(deck.root().get("memory", "0"));
  deck.root().check(memory.has_value(), "memory", "must be bytes or, for example, 64 GiB");
  machine.memory = memory.value_or(0);
  deck.refuse_unread();
  return machine;
}

std::string Machine::text(const std::string& deck) const {
  return fmt::format(
      "# Written by: qnext bench machine {}\n"
      "# What one rank reaches while {} work at the same time; read by qnext plan --machine.\n"
      "measured: {{backend: {}, ranks: {}, threads: {}, precision: {}}}\n"
      "rates:\n"
      "  delta_net: {:.4g}  # FLOP/s, forward and backward, of whole layers\n"
      "  attention: {:.4g}\n"
      "  experts: {:.4g}\n"
      "  dense: {:.4g}\n"
      "  logits: {:.4g}\n"
      "  copy: {:.4g}       # bytes/s, read and written\n"
      "  messages: {:.4g}   # bytes/s that a rank sends while it receives as many\n"
      "  latency: {:.4g}    # s\n"
      "  overlap: {:.2f}       # share of a message's time in which a rank computes on\n"
      "memory: 0             # that a rank may use: 64 GiB; 0: not said\n",
      deck, ranks, backend, ranks, threads, name_of(precision), delta_net, attention, experts,
      dense, logits, copy, messages, latency, overlap);
}

}  // namespace qnext
