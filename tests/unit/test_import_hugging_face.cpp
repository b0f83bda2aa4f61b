// SPDX-License-Identifier: Apache-2.0
#include "app/hugging_face_names.hpp"
#include "app/import_hugging_face.hpp"
#include "tests/safetensors_files.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace qnext {
namespace {

using test::message_of;
using test::SafetensorsText;
using test::TemporaryFolder;
using test::to_host;
using test::write_bytes;

Parameter named(const std::string& name, const std::vector<std::int64_t>& extents) {
  return {.name = name, .shard = Shard::whole(extents)};
}

TEST(HuggingFaceNames, AreThoseOfTheTable) {
  const auto row = named("model.layers.0.linear_attn.conv1d.weight", {12, 1, 4});
  for (const ExpertLayout layout : {ExpertLayout::one_by_one, ExpertLayout::stacked}) {
    const auto tensors = hugging_face_tensors(row, layout);
    ASSERT_EQ(tensors.size(), 1u);
    EXPECT_EQ(tensors[0].name, row.name);
    EXPECT_EQ(tensors[0].extents, (std::vector<std::int64_t>{12, 1, 4}));
    EXPECT_EQ(tensors[0].box.elements(), 48);
  }
}

TEST(HuggingFaceNames, OfExpertsAreOnePerExpertAndProjection) {
  const auto row = named("mtp.layers.0.mlp.experts.gate_up_proj", {2, 6, 5});
  const auto tensors = hugging_face_tensors(row, ExpertLayout::one_by_one);
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_EQ(tensors[0].name, "mtp.layers.0.mlp.experts.0.gate_proj.weight");
  EXPECT_EQ(tensors[3].name, "mtp.layers.0.mlp.experts.1.up_proj.weight");
  EXPECT_EQ(tensors[3].extents, (std::vector<std::int64_t>{3, 5}));
  EXPECT_EQ(tensors[3].box.offset, (std::array<std::int64_t, 4>{1, 3, 0, 0}));
  EXPECT_EQ(tensors[3].box.extent, (std::array<std::int64_t, 4>{1, 3, 5, 1}));
  EXPECT_EQ(hugging_face_tensors(row, ExpertLayout::stacked)[0].name, row.name);
  const auto down =
      hugging_face_tensors(named("x.mlp.experts.down_proj", {2, 5, 3}), ExpertLayout::one_by_one);
  EXPECT_EQ(down[1].name, "x.mlp.experts.1.down_proj.weight");
  EXPECT_EQ(down[1].extents, (std::vector<std::int64_t>{5, 3}));
}

std::vector<float> count_from(float first, int count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

/// Two experts of width 2 and 3 channels: gate 0..5, up 10..15, down 20..25; 100 more for expert 1.
void add_experts(SafetensorsText& text, bool with_down) {
  for (int e = 0; e < 2; ++e) {
    const std::string prefix = "l.mlp.experts." + std::to_string(e) + ".";
    const float first = 100.0f * static_cast<float>(e);
    text.add(prefix + "gate_proj.weight", "F32", "[2, 3]", count_from(first, 6));
    text.add(prefix + "up_proj.weight", "F32", "[2, 3]", count_from(first + 10, 6));
    if (with_down) {
      text.add(prefix + "down_proj.weight", "F32", "[3, 2]", count_from(first + 20, 6));
    }
  }
}

class Import : public testing::Test {
 protected:
  void write(const SafetensorsText& text) {
    write_bytes(folder / "model.safetensors", text.bytes());
  }
  std::string message(const ParameterTable& table) {
    return message_of([&] { import_hugging_face(folder.path(), table); });
  }

  TemporaryFolder folder;
};

TEST_F(Import, StacksExperts) {
  SafetensorsText text;
  add_experts(text, true);
  write(text);
  ParameterTable table;
  Weight<double, 3> gate_up, down;
  table.add(named("l.mlp.experts.gate_up_proj", {2, 4, 3}), gate_up);
  table.add(named("l.mlp.experts.down_proj", {2, 3, 2}), down);
  table.lay_out();
  EXPECT_TRUE(import_hugging_face(folder.path(), table).empty());
  EXPECT_EQ(to_host(gate_up.value),
            (std::vector<double>{0,   1,   2,   3,   4,   5,   10,  11,  12,  13,  14,  15,
                                 100, 101, 102, 103, 104, 105, 110, 111, 112, 113, 114, 115}));
  EXPECT_EQ(to_host(down.value),
            (std::vector<double>{20, 21, 22, 23, 24, 25, 120, 121, 122, 123, 124, 125}));
}

TEST_F(Import, TakesStackedExpertsAsTheyAre) {
  SafetensorsText text;
  text.add("l.mlp.experts.down_proj", "F32", "[2, 3, 2]", count_from(0, 12));
  write(text);
  ParameterTable table;
  Weight<float, 3> down;
  table.add(named("l.mlp.experts.down_proj", {2, 3, 2}), down);
  table.lay_out();
  import_hugging_face(folder.path(), table);
  EXPECT_EQ(to_host(down.value), (std::vector<double>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
}

// A rank that holds the second rows of gate and up of expert 1, and a column of a matrix.
TEST_F(Import, FillsTheBoxesOfAShard) {
  SafetensorsText text;
  add_experts(text, false);
  text.add("w", "F32", "[3, 4]", count_from(0, 12));
  write(text);
  ParameterTable table;
  Weight<float, 3> gate_up;
  Weight<float, 2> column;
  auto experts = named("l.mlp.experts.gate_up_proj", {2, 4, 3});
  experts.shard.boxes = {{{1, 1}, {1, 2, 3, 1}}};
  auto matrix = named("w", {3, 4});
  matrix.shard.boxes = {{{0, 2}, {1, 2, 1, 1}}, {{2, 2}, {1, 2, 1, 1}}};
  table.add(experts, gate_up);
  table.add(matrix, column);
  table.lay_out();
  import_hugging_face(folder.path(), table);
  EXPECT_EQ(to_host(gate_up.value), (std::vector<double>{103, 104, 105, 110, 111, 112}));
  EXPECT_EQ(to_host(column.value), (std::vector<double>{2, 3, 10, 11}));
}

TEST_F(Import, ConvertsToTheTypeOfTheTable) {
  SafetensorsText text;
  text.add<float>("matrix", "F32", "[1, 2]", {1.00390625f, -2.0f});
  text.add<std::uint16_t>("norm", "BF16", "[1]", {0x3e80});
  write(text);
  ParameterTable table;
  Weight<bf16, 2> matrix;
  Weight<float, 1> norm;
  table.add(named("matrix", {1, 2}), matrix);
  table.add(named("norm", {1}), norm);
  table.lay_out();
  import_hugging_face(folder.path(), table);
  EXPECT_EQ(to_host(matrix.value), (std::vector<double>{1.0, -2.0}));
  EXPECT_EQ(to_host(norm.value), std::vector<double>{0.25});
}

TEST_F(Import, ListsMissingAndUnknownTensors) {
  SafetensorsText text;
  text.add<float>("a", "F32", "[1]", {1});
  text.add<float>("surplus", "F32", "[1]", {1});
  write(text);
  ParameterTable table;
  Weight<float, 1> a, b;
  Weight<float, 3> down;
  table.add(named("a", {1}), a);
  table.add(named("b", {1}), b);
  table.add(named("l.mlp.experts.down_proj", {2, 3, 2}), down);
  table.lay_out();
  EXPECT_EQ(message(table), folder.path() +
                                ": does not hold the tensors of this model: missing 3 (b, "
                                "l.mlp.experts.0.down_proj.weight, "
                                "l.mlp.experts.1.down_proj.weight) unknown 1 (surplus)");
}

TEST_F(Import, NamesAShapeThatDiffers) {
  SafetensorsText text;
  text.add<float>("a", "F32", "[2, 1]", {1, 2});
  write(text);
  ParameterTable table;
  Weight<float, 1> a;
  table.add(named("a", {2}), a);
  table.lay_out();
  EXPECT_EQ(message(table), folder.path() + ": a: has the extents (2, 1), wanted are (2)");
}

TEST_F(Import, LeavesOutAnMtpModuleThatTheModelDoesNotHave) {
  SafetensorsText text;
  text.add<float>("a", "F32", "[1]", {1});
  text.add<float>("mtp.fc.weight", "F32", "[1]", {2});
  text.add<float>("mtp.norm.weight", "F32", "[1]", {3});
  write(text);
  EXPECT_TRUE(has_mtp_weights(folder.path()));
  ParameterTable without, with;
  Weight<float, 1> a, again, fc;
  without.add(named("a", {1}), a);
  without.lay_out();
  EXPECT_EQ(import_hugging_face(folder.path(), without),
            std::vector<std::string>{"2 tensors mtp.* are left out: the model has no such module"});
  with.add(named("a", {1}), again);
  with.add(named("mtp.fc.weight", {1}), fc);
  with.lay_out();
  EXPECT_EQ(message(with), folder.path() +
                               ": does not hold the tensors of this model: unknown 1 "
                               "(mtp.norm.weight)");
}

TEST_F(Import, WantsATiedHeadOnceOrTheSameTwice) {
  ParameterTable table;
  Weight<float, 2> embedding, head;
  table.add(named("embedding", {1, 2}), embedding);
  auto tied = named("lm_head.weight", {1, 2});
  tied.alias_of = "embedding";
  table.add(tied, head);
  table.lay_out();
  const auto file = [&](const std::vector<float>& second) {
    SafetensorsText text;
    text.add<float>("embedding", "F32", "[1, 2]", {1, 2});
    if (!second.empty()) {
      text.add("lm_head.weight", "F32", "[1, 2]", second);
    }
    write(text);
  };
  file({});
  EXPECT_TRUE(import_hugging_face(folder.path(), table).empty());
  EXPECT_EQ(to_host(head.value), (std::vector<double>{1, 2}));
  file({1, 2});
  EXPECT_EQ(import_hugging_face(folder.path(), table),
            std::vector<std::string>{"lm_head.weight is embedding once more"});
  file({1, 3});
  EXPECT_EQ(message(table), folder.path() +
                                ": lm_head.weight differs from embedding, although config.json "
                                "ties them");
}

}  // namespace
}  // namespace qnext
