// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "io/safetensors.hpp"
#include "tests/hugging_face_folder.hpp"
#include "tests/peft_folder.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace qnext {
namespace {

using test::bytes_of;
using test::Factors;
using test::FolderForm;
using test::small_config;
using test::TemporaryFolder;
using test::write_folder;

constexpr int rank = 2;

// Multiples of 1/128 below 1, whose products with each other and with 3/2 are exact in double.
std::vector<float> some_numbers(std::int64_t count, unsigned seed) {
  std::vector<float> numbers;
  for (const std::byte byte : test::random_bytes(count, seed)) {
    numbers.push_back((static_cast<float>(byte) - 128.0f) / 128.0f);
  }
  return numbers;
}

Factors factors_of(const std::string& projection, int out, int in) {
  return {projection, out, in, some_numbers(rank * in, 3), some_numbers(out * rank, 5)};
}

std::vector<Factors> adapters_of(const HuggingFaceConfig& config) {
  const int width = config.hidden_size;
  return {factors_of("model.layers.0.linear_attn.out_proj", width,
                     config.linear_num_value_heads * config.linear_value_head_dim),
          factors_of("model.layers.1.self_attn.k_proj",
                     config.num_key_value_heads * config.head_dim, width),
          factors_of("model.layers.1.mlp.shared_expert.down_proj", width,
                     config.shared_expert_intermediate_size),
          factors_of("model.layers.2.mlp.up_proj", config.intermediate_size, width)};
}

std::vector<double> doubles_of(const SafeTensor& tensor) {
  std::vector<double> numbers(static_cast<std::size_t>(tensor.elements()));
  convert_elements(tensor, "", 0, tensor.elements(), numbers.data());
  return numbers;
}

// round(W + 3/2 B A) in the format of the tensor, as a double. Of infinities and NaN what double
// makes of them.
double merged(const Factors& factors, double w, std::int64_t place, NumberFormat format) {
  const auto o = place / factors.in, i = place % factors.in;
  double sum = w;
  for (int r = 0; r < rank; ++r) {
    sum += 1.5 * factors.b[o * rank + r] * factors.a[r * factors.in + i];
  }
  std::byte stored[8];
  convert_numbers(NumberFormat::f64, reinterpret_cast<const std::byte*>(&sum), format, stored, 1);
  convert_numbers(format, stored, NumberFormat::f64, reinterpret_cast<std::byte*>(&sum), 1);
  return sum;
}

void expect_merged(const SafeTensor& tensor, const std::vector<double>& before,
                   const Factors& factors) {
  const auto after = doubles_of(tensor);
  int moved = 0;
  for (std::size_t n = 0; n < after.size(); ++n) {
    const double wanted =
        merged(factors, before[n], static_cast<std::int64_t>(n), *number_format_named(tensor.type));
    ASSERT_TRUE(after[n] == wanted || (std::isnan(after[n]) && std::isnan(wanted)))
        << factors.projection << " " << n << ": " << after[n] << ", wanted " << wanted;
    moved += after[n] != before[n] && !std::isnan(wanted) ? 1 : 0;
  }
  EXPECT_GT(moved, 0) << factors.projection;
}

class MergeAdapter : public testing::Test {
 protected:
  void merge(const FolderForm& form, const std::string& dtype = "") {
    adapters = adapters_of(form.config);
    write_folder(folder / "from", form);
    test::write_peft_folder(folder / "adapter", rank, adapters);
    convert({folder / "from", folder / "to", dtype, "", folder / "adapter"});
  }

  // Weights with an adapter are merged; everything else has the bytes of the folder.
  void expect_merged_folder() {
    const SafetensorsFolder from(folder / "from"), to(folder / "to");
    ASSERT_EQ(from.names(), to.names());
    std::map<std::string, const Factors*> beside;
    for (const Factors& factors : adapters) {
      beside[factors.projection + ".weight"] = &factors;
    }
    for (const std::string& name : from.names()) {
      const SafeTensor &before = *from.find(name), &after = *to.find(name);
      ASSERT_EQ(before.type, after.type) << name;
      ASSERT_EQ(before.extents, after.extents) << name;
      if (const auto it = beside.find(name); it != beside.end()) {
        expect_merged(after, doubles_of(before), *it->second);
        beside.erase(it);
      } else {
        EXPECT_TRUE(std::equal(before.bytes.begin(), before.bytes.end(), after.bytes.begin()))
            << name;
      }
    }
    EXPECT_TRUE(beside.empty());
    EXPECT_EQ(bytes_of(folder / "from/config.json"), bytes_of(folder / "to/config.json"));
  }

  TemporaryFolder folder;
  std::vector<Factors> adapters;
};

TEST_F(MergeAdapter, MovesTheWeightsThatItIsBeside) {
  merge({.config = small_config(), .mtp = true});
  expect_merged_folder();
}

TEST_F(MergeAdapter, LeavesStackedExpertsShardsAndATiedHeadAsTheyAre) {
  FolderForm form{.config = small_config(),
                  .head_again = true,
                  .experts = ExpertLayout::stacked,
                  .shard_bytes = 3000};
  form.config.tie_word_embeddings = true;
  merge(form);
  expect_merged_folder();
}

TEST_F(MergeAdapter, RoundsOnceToTheFormatOfEachTensor) {
  FolderForm form{.config = small_config()};
  form.format = [](const Parameter& row) {
    return row.name.ends_with("out_proj.weight")  ? NumberFormat::f16
           : row.name.ends_with("k_proj.weight")  ? NumberFormat::f64
           : row.name.ends_with("up_proj.weight") ? NumberFormat::f32
                                                  : NumberFormat::bf16;
  };
  merge(form);
  expect_merged_folder();
}

TEST_F(MergeAdapter, RoundsToTheFormatThatIsAskedFor) {
  merge({.config = small_config()}, "float");
  const SafetensorsFolder from(folder / "from"), to(folder / "to");
  for (const Factors& factors : adapters) {
    const SafeTensor& after = *to.find(factors.projection + ".weight");
    ASSERT_EQ(after.type, "F32");
    expect_merged(after, doubles_of(*from.find(factors.projection + ".weight")), factors);
  }
  EXPECT_EQ(HuggingFaceConfig::read(folder / "to").dtype, "float32");
}

}  // namespace
}  // namespace qnext
