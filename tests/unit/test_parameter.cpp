// SPDX-License-Identifier: Apache-2.0
#include "core/parameter.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace qnext {
namespace {

Parameter parameter(const std::string& name, const std::vector<std::int64_t>& extents, Init init) {
  return {.name = name, .shard = Shard::whole(extents), .init = init};
}

TEST(ParameterTable, GivesEveryWeightItsMemory) {
  ParameterTable table;
  Weight<float, 2> a, b;
  Weight<bf16, 1> c;
  table.add(parameter("a", {3, 5}, Init::normal(1.0)), a);
  table.add(parameter("b", {7, 2}, Init::ones()), b);
  table.add(parameter("c", {4}, Init::zeros()), c);
  table.lay_out();
  EXPECT_EQ(table.local_elements(), 15 + 14 + 4);
  EXPECT_EQ(table.groups().size(), 2u);  // float and bf16
  EXPECT_EQ(a.value.extent(0), 3u);
  EXPECT_EQ(a.grad.extent(1), 5u);
  EXPECT_EQ(b.value.data(), table.values<float>(*table.find("b")).data());
  EXPECT_EQ(c.grad.data(), table.gradients<float>(*table.find("c")).data());
  EXPECT_GE(b.value.data() - a.value.data(), 15);
}

TEST(ParameterTable, CallsForOtherMemoryWhenItIsLaidOut) {
  ParameterTable table;
  int calls = 0;
  table.at_lay_out([&] { ++calls; });
  EXPECT_EQ(calls, 0);
  table.lay_out();
  EXPECT_EQ(calls, 1);
}

TEST(ParameterTable, AnAliasHasTheMemoryOfItsOriginal) {
  ParameterTable table;
  Weight<float, 2> embedding, head;
  table.add(parameter("embedding", {3, 5}, Init::normal(1.0)), embedding);
  Parameter tied = parameter("head", {3, 5}, Init::normal(1.0));
  tied.alias_of = "embedding";
  table.add(tied, head);
  table.lay_out();
  EXPECT_EQ(head.value.data(), embedding.value.data());
  EXPECT_EQ(head.grad.data(), embedding.grad.data());
  EXPECT_EQ(table.local_elements(), 15);
}

TEST(ParameterTable, RefusesANameTwice) {
  ParameterTable table;
  Weight<float, 1> a, b;
  table.add(parameter("same", {3}, Init::zeros()), a);
  EXPECT_THROW(table.add(parameter("same", {3}, Init::zeros()), b), Error);
}

// Two shards of a tensor start with the numbers that the whole one has at their places.
TEST(Initialise, DoesNotDependOnTheShards) {
  ParameterTable whole_table, part_table;
  Weight<double, 2> whole, part;
  whole_table.add(parameter("w", {6, 4}, Init::normal(0.5)), whole);
  Parameter boxes = parameter("w", {6, 4}, Init::normal(0.5));
  boxes.shard.boxes = {{{1, 0, 0, 0}, {2, 4, 1, 1}}, {{5, 0, 0, 0}, {1, 4, 1, 1}}};
  part_table.add(boxes, part);
  whole_table.lay_out();
  part_table.lay_out();
  initialise(whole_table, 7);
  initialise(part_table, 7);
  const auto all = test::to_host(whole.value), some = test::to_host(part.value);
  ASSERT_EQ(some.size(), 12u);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(some[i], all[4 + i]);
  }
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(some[8 + i], all[20 + i]);
  }
}

// The neighbours of a number in its type: of 1.25 two that differ by 2^-23 in float, 2^-7 in bf16.
template <class T>
void expect_neighbours(double rounding) {
  ParameterTable table, part_table;
  Weight<T, 1> w, zero, norm, part;
  table.add(parameter("w", {64}, Init::ones()), w);
  table.add(parameter("zero", {3}, Init::zeros()), zero);
  Parameter centred = parameter("norm", {64}, Init::zeros());
  centred.zero_centred_norm = true;
  table.add(centred, norm);
  Parameter half = parameter("w", {64}, Init::ones());
  half.shard = Shard::part({64}, 0, 1, 2);
  part_table.add(half, part);
  for (ParameterTable* each : {&table, &part_table}) {
    each->lay_out();
    const Parameter& row = *each->find("w");
    Kokkos::deep_copy(each->template values<T>(row), T(1.25));
    move_by_one_rounding(*each, 5);
  }
  const auto moved = test::to_host(w.value), of_norm = test::to_host(norm.value);
  int up = 0;
  for (std::size_t i = 0; i < moved.size(); ++i) {
    EXPECT_EQ(std::abs(moved[i] - 1.25), rounding);
    EXPECT_EQ(std::abs(of_norm[i]), rounding) << "of 1 + 0";
    up += moved[i] > 1.25;
  }
  EXPECT_TRUE(up > 0 && up < 64) << up << " of 64 moved up";
  EXPECT_EQ(test::to_host(zero.value), std::vector<double>(3, 0.0));
  EXPECT_EQ(test::to_host(part.value), std::vector<double>(moved.begin() + 32, moved.end()));
  move_by_one_rounding(table, 6);
  EXPECT_NE(test::to_host(w.value), moved) << "another member";
}

TEST(MoveByOneRounding, GoesToANeighbourWhateverTheShards) {
  expect_neighbours<double>(0x1p-52);
  expect_neighbours<float>(0x1p-23);
  expect_neighbours<bf16>(0x1p-7);
}

// The mean of n numbers of deviation s has the deviation s / sqrt(n), their mean square s^2 one of
// s^2 sqrt(2 / n); five of these are left in one of 1.7 million seeds, and the seed is fixed.
TEST(Initialise, NormalNumbersHaveTheirDeviation) {
  ParameterTable table;
  Weight<double, 1> w;
  const int n = 40000;
  table.add(parameter("w", {n}, Init::normal(0.02)), w);
  table.lay_out();
  initialise(table, 1);
  double sum = 0.0, squares = 0.0;
  for (const double value : test::to_host(w.value)) {
    sum += value;
    squares += value * value;
  }
  EXPECT_NEAR(sum / n, 0.0, 5.0 * 0.02 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 4e-4, 5.0 * 4e-4 * std::sqrt(2.0 / n));
}

TEST(Initialise, LogUniformNumbersAreFinite) {
  ParameterTable table;
  Weight<float, 1> w;
  table.add(parameter("A_log", {4096}, Init::log_uniform(16.0)), w);
  table.lay_out();
  initialise(table, 3);
  for (const double value : test::to_host(w.value)) {
    ASSERT_TRUE(std::isfinite(value));
    ASSERT_LE(value, std::log(16.0) + 1e-6);
  }
}

// Three chunks of a pipeline, of which the second has nothing of the second type.
TEST(ParameterTable, GivesEachChunkItsOwnGroups) {
  ParameterTable table;
  Weight<float, 1> a, b, c, d;
  Weight<double, 1> e, f;
  const auto row = [](const char* name) {
    return Parameter{.name = name, .shard = Shard::whole({3})};
  };
  table.begin_chunk(1);
  table.add(row("a"), a);
  table.add(row("e"), e);
  table.begin_chunk(4);
  table.add(row("b"), b);
  table.add(row("c"), c);
  table.begin_chunk(5);
  table.add(row("f"), f);
  table.add(row("d"), d);
  struct Expected {
    int chunk;
    std::size_t first_row;
    std::int64_t elements;
  };
  const std::vector<Expected> expected{{1, 0, 64}, {1, 1, 64}, {4, 2, 128}, {5, 4, 64}, {5, 5, 64}};
  ASSERT_EQ(table.groups().size(), expected.size());
  for (std::size_t g = 0; g < expected.size(); ++g) {
    EXPECT_EQ(table.groups()[g].chunk, expected[g].chunk) << "group " << g;
    EXPECT_EQ(table.groups()[g].first_row, expected[g].first_row) << "group " << g;
    EXPECT_EQ(table.groups()[g].elements, expected[g].elements) << "group " << g;
  }
  EXPECT_EQ(table.rows()[2].chunk, 4);
  try {
    table.begin_chunk(4);
    ADD_FAILURE() << "a chunk behind a later one was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("chunk 4 comes behind chunk 5 in the table"),
              std::string::npos)
        << error.what();
  }
}

// 64 floats, padding included, are 256 bytes. A row goes into the newest group of its kind alone,
// so that the groups of a kind follow each other in the table.
TEST(ParameterTable, BeginsAnotherGroupWhereABucketIsFull) {
  ParameterTable table(600);
  Weight<float, 1> a, b, large, c, d;
  Weight<bf16, 1> other;
  Weight<float, 1> alias;
  const auto add = [&](const char* name, int elements, auto& weight, const char* alias_of = "") {
    table.add({.name = name, .shard = Shard::whole({elements}), .alias_of = alias_of}, weight);
  };
  add("a", 64, a);
  add("b", 3, b);
  add("other", 64, other);
  add("large", 1000, large);
  add("alias", 3, alias, "b");
  add("c", 1, c);
  add("d", 65, d);
  std::vector<int> groups;
  for (const Parameter& row : table.rows()) {
    groups.push_back(row.group);
  }
  EXPECT_EQ(groups, (std::vector<int>{0, 0, 1, 2, 0, 3, 4}));
  EXPECT_EQ(table.groups()[2].first_row, 3u);
  EXPECT_EQ(table.groups()[4].first_row, 6u);
  table.lay_out();
  EXPECT_EQ(table.groups()[2].gradients.extent(0), 1024 * sizeof(float));
  EXPECT_EQ(d.grad.extent(0), 65u);
}

}  // namespace
}  // namespace qnext
