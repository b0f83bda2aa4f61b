// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "io/deck.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

namespace qnext {
namespace {

enum class Capacity { dropless, position };

const char* const small_deck = R"(# a comment
run:
  name: tiny
  steps: 200
  wall_time: 0
model:
  width: 64
  tied_head: false
  norm_epsilon: 1.0e-6
  mixers: {full_attention_every: 4}
  experts:
    count: 8
    per_token: 2
    capacity: dropless
data:
  train:
    - {path: a.txt, weight: 2}
    - path: b.txt
optimizer:
  betas: [0.9, 0.95]
)";

Deck deck(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return Deck::parse(text, "d.yaml", overrides);
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

// What a program would read from small_deck; "again" must be the same for the resolved deck.
std::string read_all(const Deck& d) {
  std::string seen;
  const auto add = [&](const auto& value) { seen += std::to_string(value) + " "; };
  const Section run = d.section("run");
  seen += run.get<std::string>("name") + " ";
  add(run.get<int>("steps"));
  add(run.get<double>("wall_time"));
  add(run.get<std::uint64_t>("seed", 7));
  seen += run.get("precision", "float") + " ";
  seen += run.get("note", "null: a \"quoted\"\nline") + " ";
  seen += run.get("word", "null") + " " + run.get("minus", "-1") + " ";
  const Section model = d.section("model");
  add(model.get<std::int64_t>("width"));
  add(model.get<bool>("tied_head"));
  add(model.get<double>("norm_epsilon"));
  add(model.section("mixers").get("full_attention_every", 1));
  add(model.section("experts").get<int>("count"));
  add(model.section("experts").get<int>("per_token"));
  add(static_cast<int>(model.section("experts").choose<Capacity>(
      "capacity", {{"dropless", Capacity::dropless}, {"position", Capacity::position}},
      Capacity::position)));
  for (const Section& source : d.section("data").sections("train")) {
    seen += source.get<std::string>("path") + " ";
    add(source.get("weight", 1.0));
  }
  for (const double beta : d.section("optimizer").get<std::vector<double>>("betas")) {
    add(beta);
  }
  for (const int layer : model.get("dense_layers", std::vector<int>{1, 3})) {
    add(layer);
  }
  add(d.section("output").get("keep", 2));
  return seen;
}

TEST(Deck, ReadsEveryType) {
  const Deck d = deck(small_deck);
  EXPECT_EQ(read_all(d),
            "tiny 200 0.000000 7 float null: a \"quoted\"\nline null -1 64 0 0.000001 4 8 2 0 "
            "a.txt 2.000000 b.txt 1.000000 0.900000 0.950000 1 3 2 ");
  EXPECT_NO_THROW(d.refuse_unread());
  EXPECT_EQ(d.text(), small_deck);
}

TEST(Deck, TheResolvedDeckGivesTheSameRunAndIsItsOwnResolvedDeck) {
  const Deck given = deck(small_deck, {"run.steps=3", "optimizer.betas=[0.5, 0.25]"});
  const std::string seen = read_all(given);
  const Deck again = deck(given.resolved());
  EXPECT_EQ(read_all(again), seen) << given.resolved();
  EXPECT_NO_THROW(again.refuse_unread());
  EXPECT_EQ(again.resolved(), given.resolved());
}

TEST(Deck, TheResolvedDeckIsYaml) {
  const Deck d = deck("a: {b: [1, 2], c: x}\n");
  d.section("a").get<std::vector<int>>("b");
  d.section("a").get("c", "");
  d.section("a").get("d", 0.5);
  d.section("e").get("f", "two words");
  EXPECT_EQ(d.resolved(), "a:\n  b: [1, 2]\n  c: x\n  d: 0.5\ne:\n  f: \"two words\"\n");
}

TEST(Deck, UnreadKeysAreNamedWithTheNearestName) {
  const auto unread = [](const std::string& text) {
    const Deck d = deck(text);
    d.section("model").section("experts").get("per_token", 1);
    d.section("model").section("experts").get("count", 1);
    d.section("run").get("steps", 1);
    return message_of([&] { d.refuse_unread(); });
  };
  EXPECT_EQ(unread("model:\n  experts:\n    per_tokens: 2\n"),
            "d.yaml:3: model.experts.per_tokens: nothing reads this key; did you mean per_token?");
  EXPECT_EQ(unread("steps: 2\n"),
            "d.yaml:1: steps: nothing reads this key; did you mean run.steps?");
  EXPECT_EQ(unread("model:\n  experts:\n    colour: 2\n"),
            "d.yaml:3: model.experts.colour: nothing reads this key; known here: count, per_token");
  EXPECT_EQ(unread("run:\n  temperature: 2\n"),
            "d.yaml:2: run.temperature: nothing reads this key; known here: steps");
  EXPECT_EQ(unread("modle: {experts: {count: 2}}\nruns: 1\n"),
            "d.yaml:1: modle: nothing reads this key; did you mean model?\n"
            "d.yaml:2: runs: nothing reads this key; did you mean run?");
}

TEST(Deck, OverridesReplaceAddAndAreNamed) {
  const Deck d = deck(small_deck, {"run.steps=10", "model.experts.capacity.factor=1.25",
                                   "data.train.1.path=c.txt", "new.key=[1, 2]", "run.name=a=b"});
  EXPECT_EQ(d.section("run").get<int>("steps"), 10);
  EXPECT_EQ(d.section("run").get<std::string>("name"), "a=b");
  EXPECT_EQ(d.section("model").section("experts").section("capacity").get<double>("factor"), 1.25);
  EXPECT_EQ(d.section("data").sections("train")[1].get<std::string>("path"), "c.txt");
  EXPECT_EQ(d.section("new").get<std::vector<int>>("key"), (std::vector<int>{1, 2}));

  EXPECT_EQ(message_of([] { deck("a: 1\n", {"a=x"}).root().get<double>("a"); }),
            "override: a = x: expected a finite number");
  const Deck typo = deck("run: {steps: 1}\n", {"run.step=2"});
  typo.section("run").get<int>("steps");
  EXPECT_EQ(message_of([&] { typo.refuse_unread(); }),
            "override: run.step: nothing reads this key; did you mean steps?");
  EXPECT_EQ(message_of([] { deck("a: 1\n", {"a"}); }),
            "override: a: must be key=value, for example run.steps=10");
  EXPECT_EQ(message_of([] { deck("a: 1\n", {"a..b=1"}); }),
            "override: a..b=1: must be key=value, for example run.steps=10");
  EXPECT_EQ(message_of([] { deck("a: [1, 2]\n", {"a.2=1"}); }),
            "override: a.2: a has the items 0 to 1");
  EXPECT_EQ(message_of([] { deck("a: 1\n", {"a=[1"}); }),
            "override: a key must be a word, not a list or a section; is a bracket left open?");
  EXPECT_EQ(message_of([] { deck("a: 1\n", {"a={b: 1"}); }).substr(0, 10), "override: ");
}

TEST(Deck, UnionsAskForTheForm) {
  const Deck d = deck("a: 5\nb: {minutes: 30}\nc: [1]\n");
  const Section root = d.root();
  EXPECT_FALSE(root.is_section("a"));
  EXPECT_TRUE(root.is_section("b"));
  EXPECT_TRUE(root.is_list("c"));
  EXPECT_TRUE(root.has("a"));
  EXPECT_FALSE(root.has("e"));
  EXPECT_EQ(root.keys(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(message_of([&] { d.refuse_unread(); }).substr(0, 34),
            "d.yaml:1: a: nothing reads this ke");
}

TEST(Deck, WrongTypesAreRefusedWithTheValueFound) {
  const auto refused = [](const std::string& text, auto read) {
    return message_of([&] { read(deck(text).root()); });
  };
  const auto integer = [](const Section& s) { s.get<int>("a"); };
  const auto boolean = [](const Section& s) { s.get<bool>("a"); };
  const auto list = [](const Section& s) { s.get<std::vector<int>>("a"); };
  EXPECT_EQ(refused("a: ten\n", integer),
            "d.yaml:1: a = ten: expected an integer from -2147483648 to 2147483647");
  EXPECT_EQ(refused("a: 2.5\n", integer),
            "d.yaml:1: a = 2.5: expected an integer from -2147483648 to 2147483647");
  EXPECT_EQ(refused("a: 3000000000\n", integer),
            "d.yaml:1: a = 3000000000: expected an integer from -2147483648 to 2147483647");
  EXPECT_EQ(refused("a: \"5\"\n", integer),
            "d.yaml:1: a = 5: expected an integer from -2147483648 to 2147483647");
  EXPECT_EQ(refused("a: -1\n", [](const Section& s) { s.get<std::uint64_t>("a"); }),
            "d.yaml:1: a = -1: expected an integer from 0 to 18446744073709551615");
  EXPECT_EQ(refused("a: nan\n", [](const Section& s) { s.get<double>("a"); }),
            "d.yaml:1: a = nan: expected a finite number");
  EXPECT_EQ(refused("a: yes\n", boolean), "d.yaml:1: a = yes: expected true or false");
  EXPECT_EQ(refused("a:\n", integer), "d.yaml:1: a = : has no value");
  EXPECT_EQ(refused("a: [1, 2]\n", integer),
            "d.yaml:1: a = [1, 2]: expected a single value, found a list");
  EXPECT_EQ(refused("a: {b: 1}\n", boolean),
            "d.yaml:1: a = {b: 1}: expected a single value, found a section");
  EXPECT_EQ(refused("a: 1\n", list), "d.yaml:1: a = 1: expected a list: [first, second]");
  EXPECT_EQ(refused("a:\n- 1\n- x\n", list),
            "d.yaml:3: a.1 = x: expected an integer from -2147483648 to 2147483647");
  EXPECT_EQ(refused("a: 1\n", [](const Section& s) { s.section("a"); }),
            "d.yaml:1: a = 1: expected a section with keys of its own");
  EXPECT_EQ(refused("a: 1\n", [](const Section& s) { s.sections("a"); }),
            "d.yaml:1: a = 1: expected a list of sections: [{first: 1}, {first: 2}]");
  EXPECT_EQ(refused("a: [1]\n", [](const Section& s) { s.sections("a"); }),
            "d.yaml:1: a.0 = 1: expected a section with keys of its own");
  const auto word = [](const Section& s) {
    s.choose<Capacity>("a", {{"dropless", Capacity::dropless}, {"position", Capacity::position}});
  };
  EXPECT_EQ(refused("a: dropped\n", word), "d.yaml:1: a = dropped: expected dropless | position");
}

TEST(Deck, MissingKeysAreNamedWithWhatWasProbablyMeant) {
  const Deck d = deck("run:\n  name: x\n  stepz: 3\n");
  EXPECT_EQ(message_of([&] { d.section("run").get<int>("steps"); }),
            "d.yaml:1: run.steps: this key is required; is stepz at d.yaml:3 meant to be it?");
  EXPECT_EQ(message_of([&] { d.section("run").get<int>("precision"); }),
            "d.yaml:1: run.precision: this key is required");
  EXPECT_EQ(message_of([&] { d.section("model").get<int>("width"); }),
            "d.yaml: model.width: this key is required");
  EXPECT_EQ(message_of([&] { d.root().get<int>("model_width"); }),
            "d.yaml: model_width: this key is required");
}

TEST(Deck, ChecksNameTheValue) {
  const Deck d = deck("model:\n  delta_net:\n    value_heads: 5\n");
  const Section delta_net = d.section("model").section("delta_net");
  delta_net.get<int>("value_heads");
  delta_net.get("chunk", 7);
  EXPECT_NO_THROW(delta_net.check(true, "value_heads", "must be a multiple of key_heads"));
  EXPECT_EQ(
      message_of([&] { delta_net.check(false, "value_heads", "must be a multiple of key_heads"); }),
      "d.yaml:3: model.delta_net.value_heads = 5: must be a multiple of key_heads");
  EXPECT_EQ(message_of([&] { delta_net.fail("chunk", "must be a multiple of 16"); }),
            "d.yaml: model.delta_net.chunk = 7 (default): must be a multiple of 16");
  EXPECT_EQ(message_of([&] { delta_net.fail("key_heads", "must stand here"); }),
            "d.yaml:2: model.delta_net.key_heads: must stand here");
}

TEST(Deck, BrokenFilesAreRefused) {
  const auto refused = [](const std::string& text) { return message_of([&] { deck(text); }); };
  EXPECT_EQ(refused(""), "d.yaml: is empty, expected a deck (sections run, model, data, ...)");
  EXPECT_EQ(refused("# only a comment\n"),
            "d.yaml: is empty, expected a deck (sections run, model, data, ...)");
  EXPECT_EQ(refused("just words\n"),
            "d.yaml: expected a deck (sections run, model, data, ...), found just words");
  EXPECT_EQ(refused("- 1\n- 2\n"),
            "d.yaml: expected a deck (sections run, model, data, ...), found [1, 2]");
  EXPECT_EQ(refused("run:\n  steps: 1\n  steps: 2\n"),
            "d.yaml:3: run.steps: this key stands already at d.yaml:2");
  EXPECT_EQ(refused("a: &x 1\n"), "d.yaml:1: anchors (&name) are not part of a deck; write it out");
  EXPECT_EQ(refused("a: &x {c: 1}\nb: *x\n"),
            "d.yaml:1: anchors (&name) are not part of a deck; write it out");
  EXPECT_EQ(refused("b: *x\n").substr(0, 9), "d.yaml:1:");
  EXPECT_EQ(refused("a: !!int 5\n"),
            "d.yaml:1: tags (tag:yaml.org,2002:int) are not part of a deck");
  EXPECT_EQ(refused("a: 1\n---\nb: 2\n"), "d.yaml: holds more than one YAML document (---)");
  EXPECT_EQ(refused("? [a, b]\n: 1\n"),
            "d.yaml:1: a key must be a word, not a list or a section; is a bracket left open?");
  EXPECT_EQ(refused("~: 1\n"), "d.yaml:1: a key is missing before the colon");
  EXPECT_EQ(refused("a: [1, 2\nb: 3\n").substr(0, 19), "d.yaml:2: not YAML:");
  EXPECT_EQ(refused("a: {b: 1\n").substr(0, 19), "d.yaml:2: not YAML:");
  EXPECT_EQ(refused("run:\n\tsteps: 1\n").substr(0, 9), "d.yaml:2:");
  EXPECT_EQ(refused("a: " + std::string(20000, '[')).substr(0, 10), "d.yaml:1: ");
}

TEST(Deck, FilesThatCannotBeReadAreNamed) {
  EXPECT_EQ(message_of([] { Deck::read("absent.yaml"); }),
            "absent.yaml: cannot be read: No such file or directory");
  const auto folder = std::filesystem::path(testing::TempDir()) / "deck_folder";
  std::filesystem::create_directories(folder);
  EXPECT_EQ(message_of([&] { Deck::read(folder.string()); }),
            folder.string() + ": is a folder, expected a deck (a YAML file)");
  const auto file = (folder / "a.yaml").string();
  std::ofstream(file) << "run: {steps: 4}\n";
  EXPECT_EQ(Deck::read(file, {"run.steps=5"}).section("run").get<int>("steps"), 5);
  EXPECT_EQ(message_of([&] { Deck::read(file).section("run").get<bool>("steps"); }),
            file + ":1: run.steps = 4: expected true or false");
}

}  // namespace
}  // namespace qnext
