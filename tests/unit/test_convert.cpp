// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "app/export_hugging_face.hpp"
#include "app/hugging_face_origin.hpp"
#include "io/checkpoint.hpp"
#include "io/safetensors.hpp"
#include "tests/hugging_face_folder.hpp"

#include <gtest/gtest.h>

#include <filesystem>

namespace qnext {
namespace {

using test::bytes_of;
using test::FolderForm;
using test::message_of;
using test::small_config;
using test::TemporaryFolder;
using test::write_bytes;
using test::write_folder;

/// Same names, types, shapes and bytes.
void expect_same_tensors(const std::string& a, const std::string& b) {
  const SafetensorsFolder left(a), right(b);
  ASSERT_EQ(left.names(), right.names());
  for (const std::string& name : left.names()) {
    const SafeTensor &x = *left.find(name), &y = *right.find(name);
    EXPECT_EQ(x.type, y.type) << name;
    EXPECT_EQ(x.extents, y.extents) << name;
    EXPECT_TRUE(std::equal(x.bytes.begin(), x.bytes.end(), y.bytes.begin(), y.bytes.end())) << name;
  }
}

class Convert : public testing::Test {
 protected:
  std::string message(const ConvertOptions& options) {
    return message_of([&] { convert(options); });
  }
  /// There and back.
  void expect_round_trip(const FolderForm& form, const std::string& shard_size = "") {
    write_folder(folder / "from", form);
    convert({folder / "from", folder / "model.h5", "", ""});
    convert({folder / "model.h5", folder / "to", "", shard_size});
    expect_same_tensors(folder / "from", folder / "to");
    EXPECT_EQ(bytes_of(folder / "from/config.json"), bytes_of(folder / "to/config.json"));
  }
  DataType precision() {
    return list_checkpoint_tensors(folder / "model.h5").front().type == ElementType::bf16
               ? DataType::bf16
               : DataType::float32;
  }

  TemporaryFolder folder;
};

TEST_F(Convert, GivesEveryBitBackOfBf16) {
  expect_round_trip({.config = small_config(), .mtp = true});
  EXPECT_EQ(precision(), DataType::bf16);
}

TEST_F(Convert, GivesEveryBitBackOfShardsAndStackedExperts) {
  expect_round_trip(
      {.config = small_config(), .experts = ExpertLayout::stacked, .shard_bytes = 3000}, "2 KiB");
  EXPECT_TRUE(std::filesystem::exists(folder / "to/model.safetensors.index.json"));
}

TEST_F(Convert, GivesEveryBitBackOfF16AndF32AndF64) {
  for (const NumberFormat format : {NumberFormat::f16, NumberFormat::f32, NumberFormat::f64}) {
    const TemporaryFolder own;
    FolderForm form{.config = small_config(), .mtp = true};
    form.format = [&](const Parameter&) { return format; };
    write_folder(own / "from", form);
    convert({own / "from", own / "model.h5", "", ""});
    convert({own / "model.h5", own / "to", "", ""});
    expect_same_tensors(own / "from", own / "to");
  }
}

// Norms in float beside bf16 matrices are a bf16 model; one f16 matrix makes it one of float.
TEST_F(Convert, GivesEveryBitBackOfAMixture) {
  FolderForm form{.config = small_config()};
  form.format = [](const Parameter& row) {
    return row.type == DataType::float32 ? NumberFormat::f32 : NumberFormat::bf16;
  };
  expect_round_trip(form);
  EXPECT_EQ(precision(), DataType::bf16);
  const TemporaryFolder other;
  form.format = [](const Parameter& row) {
    return row.name.ends_with("q_proj.weight")   ? NumberFormat::f16
           : row.name.ends_with("k_proj.weight") ? NumberFormat::f64
                                                 : NumberFormat::bf16;
  };
  write_folder(other / "from", form);
  convert({other / "from", other / "model.h5", "", ""});
  EXPECT_EQ(list_checkpoint_tensors(other / "model.h5").front().type, ElementType::float64);
  convert({other / "model.h5", other / "to", "", ""});
  expect_same_tensors(other / "from", other / "to");
}

TEST_F(Convert, GivesATiedHeadBackThatStoodThereOnceOrTwice) {
  for (const bool again : {false, true}) {
    const TemporaryFolder own;
    FolderForm form{.config = small_config(), .head_again = again};
    form.config.tie_word_embeddings = true;
    write_folder(own / "from", form);
    EXPECT_EQ(SafetensorsFolder(own / "from").find("lm_head.weight") != nullptr, again);
    convert({own / "from", own / "model.h5", "", ""});
    convert({own / "model.h5", own / "to", "", ""});
    expect_same_tensors(own / "from", own / "to");
  }
}

TEST_F(Convert, KeepsTheFilesBesideTheWeights) {
  write_folder(folder / "from", {.config = small_config()});
  const std::vector<std::string> names = {"generation_config.json", "tokenizer.json", "merges.txt",
                                          "chat_template.jinja", "vocab.json"};
  for (const std::string& name : names) {
    write_bytes(folder / ("from/" + name), "{\"\xc3\xa4\": \"" + name + "\"}\n\n");
  }
  write_bytes(folder / "from/README.md", "of somebody else");
  write_bytes(folder / "from/merges.txt", "");
  convert({folder / "from", folder / "model.h5", "", ""});
  convert({folder / "model.h5", folder / "to", "", ""});
  for (const std::string& name : names) {
    EXPECT_EQ(bytes_of(folder / ("from/" + name)), bytes_of(folder / ("to/" + name))) << name;
  }
  EXPECT_TRUE(std::filesystem::exists(folder / "to/merges.txt"));
  EXPECT_FALSE(std::filesystem::exists(folder / "to/README.md"));
  write_bytes(folder / "from/tokenizer.json", std::string("{}\0", 3));
  EXPECT_EQ(message({folder / "from", folder / "b.h5", "", ""}),
            folder / "from/tokenizer.json" + ": holds a byte of zero, which no text does");
}

TEST_F(Convert, RefusesAFileBesideTheWeightsThatIsTooLong) {
  write_folder(folder / "from", {.config = small_config()});
  write_bytes(folder / "from/vocab.json", "{}");
  std::filesystem::resize_file(folder / "from/vocab.json", (1u << 28) + 1);
  EXPECT_NE(message({folder / "from", folder / "b.h5", "", ""})
                .find("a file beside the weights is kept up to 268435456"),
            std::string::npos);
}

TEST_F(Convert, RoundsToTheFormatThatIsAskedFor) {
  FolderForm form{.config = small_config()};
  form.format = [](const Parameter&) { return NumberFormat::f32; };
  write_folder(folder / "from", form);
  convert({folder / "from", folder / "model.h5", "", ""});
  convert({folder / "model.h5", folder / "to", "half", ""});
  const SafetensorsFolder from(folder / "from"), to(folder / "to");
  for (const std::string& name : from.names()) {
    const SafeTensor &wide = *from.find(name), &narrow = *to.find(name);
    ASSERT_EQ(narrow.type, "F16");
    std::vector<std::byte> wanted(narrow.bytes.size());
    convert_numbers(NumberFormat::f32, wide.bytes.data(), NumberFormat::f16, wanted.data(),
                    wide.elements());
    EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), narrow.bytes.begin())) << name;
  }
  EXPECT_EQ(HuggingFaceConfig::read(folder / "to").dtype, "float16");
}

TEST_F(Convert, RefusesWordsThatAreNone) {
  write_folder(folder / "from", {.config = small_config()});
  EXPECT_NE(message({folder / "from", folder / "a.h5", "bf16", ""})
                .find("--dtype and --shard-size are of a Hugging Face folder that is written"),
            std::string::npos);
  convert({folder / "from", folder / "a.h5", "", ""});
  EXPECT_EQ(message({folder / "from", folder / "a.h5", "", ""}),
            folder / "a.h5" + ": is there already; it is not replaced");
  EXPECT_EQ(message({folder / "a.h5", folder / "from", "", ""}),
            folder / "from" + ": is there already; it is not replaced");
  EXPECT_EQ(message({folder / "a.h5", folder / "to", "fp8", ""}),
            "--dtype fp8: wanted is bf16, half, float or double");
  EXPECT_EQ(message({folder / "a.h5", folder / "to", "", "0"}),
            "--shard-size 0: wanted are bytes or, for example, 5 GB");
  EXPECT_NE(message({folder / "a.h5", folder / "no/such/to", "", ""})
                .find("to.part: cannot be made: No such file or directory"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder / "to.part"));
}

TEST_F(Convert, LeavesNoPartOfAFolderBehindADamagedNumber) {
  write_folder(folder / "from", {.config = small_config()});
  convert({folder / "from", folder / "a.h5", "", ""});
  std::string bytes = bytes_of(folder / "a.h5");
  const SafetensorsFolder from(folder / "from");
  const auto numbers = from.find("lm_head.weight")->bytes;
  const std::string head(reinterpret_cast<const char*>(numbers.data()), numbers.size());
  bytes[bytes.find(head)] ^= 1;
  write_bytes(folder / "a.h5", bytes);
  EXPECT_NE(message({folder / "a.h5", folder / "to", "", ""}).find("lm_head.weight: is damaged"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder / "to"));
  EXPECT_FALSE(std::filesystem::exists(folder / "to.part"));
}

TEST(HuggingFaceOrigin, RefusesAFormatThatIsNone) {
  CheckpointContent content;
  EXPECT_FALSE(HuggingFaceOrigin::of_checkpoint(content).has_value());
  content.record("hugging_face").set("updates", std::int64_t{0});
  content.record("hugging_face").set("tensors", std::string("BF16 a\nI32 b\n"));
  EXPECT_EQ(message_of([&] { HuggingFaceOrigin::of_checkpoint(content); }),
            "hugging_face.tensors: b has the format I32, which is none of BF16, F16, F32 and F64");
}

TEST(HuggingFaceModel, IsDescribedByTheConfigThatItCameFrom) {
  const HuggingFaceConfig config = small_config();
  HuggingFaceConfig again = hugging_face_config(model_config(config));
  again.max_position_embeddings = config.max_position_embeddings;
  again.dtype = config.dtype;
  EXPECT_EQ(again.text(), config.text());
  ModelConfig model = model_config(config);
  model.layer.experts.shared_width = 0;
  EXPECT_NE(message_of([&] {
              hugging_face_config(model);
            }).find("transformers has no Qwen3-Next without a shared expert"),
            std::string::npos);
}

// int(head_dim * factor), as transformers computes it, for every part of every head.
TEST(HuggingFaceModel, TurnsAsManyElementsOfAHead) {
  ModelConfig model = model_config(small_config());
  for (int head = 2; head <= 256; ++head) {
    for (int turned = 2; turned <= head; turned += 2) {
      model.layer.attention.head_width = head;
      model.layer.attention.rotary_width = turned;
      ASSERT_EQ(hugging_face_config(model).rotary_width(), turned) << head;
    }
  }
}

}  // namespace
}  // namespace qnext
