// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "app/process_memory.hpp"
#include "tests/hugging_face_folder.hpp"
#include "tests/peft_folder.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace qnext {
namespace {

using test::FolderForm;
using test::TemporaryFolder;

/// 500 MB in tensors of at most 34 MB, which are holes but for their last bytes.
FolderForm large_form() {
  FolderForm form{.config = test::small_config(), .mtp = true};
  HuggingFaceConfig& config = form.config;
  config.vocab_size = 16384;
  config.hidden_size = 1024;
  config.num_hidden_layers = 8;
  config.layer_types.assign(8, HuggingFaceConfig::LayerType::linear_attention);
  config.num_experts = 16;
  config.moe_intermediate_size = 512;
  config.mlp_only_layers = {};
  return form;
}

void write_sparse(const std::string& folder, const std::vector<SafetensorsWriter::Entry>& entries) {
  SafetensorsWriter writer(folder, entries, 200'000'000);
  const std::byte zero{};
  for (const auto& entry : entries) {
    writer.write(entry.name, entry.bytes() - 1, {&zero, 1});
  }
}

// What a conversion may take: three of the largest tensors and 100 MB, whatever the model's size.
// The model is twice as large, so that one that is read whole is found out, in both directions, and
// where an adapter is merged on the way.
TEST(ConvertMemory, DoesNotGrowWithTheModel) {
  const TemporaryFolder folder;
  const FolderForm form = large_form();
  const auto entries = test::entries_of(form);
  std::int64_t largest = 0, all = 0;
  for (const auto& entry : entries) {
    largest = std::max(largest, entry.bytes());
    all += entry.bytes();
  }
  const std::int64_t bound = 3 * largest + 100'000'000;
  ASSERT_GT(all, 2 * bound);
  std::filesystem::create_directory(folder / "from");
  test::write_bytes(folder / "from/config.json", form.config.text());
  write_sparse(folder / "from", entries);
  convert({folder / "from", folder / "model.h5", "", ""});
  EXPECT_LT(peak_resident_bytes(), bound);
  std::vector<test::Factors> adapters;
  for (int i = 0; i < form.config.num_hidden_layers; ++i) {
    const int out = form.config.hidden_size,
              in = form.config.linear_num_value_heads * form.config.linear_value_head_dim;
    adapters.push_back({fmt::format("model.layers.{}.linear_attn.out_proj", i), out, in,
                        std::vector<float>(16 * in, 0.5f), std::vector<float>(out * 16, 0.5f)});
  }
  test::write_peft_folder(folder / "adapter", 16, adapters);
  convert({folder / "from", folder / "merged", "", "", folder / "adapter"});
  EXPECT_LT(peak_resident_bytes(), bound);
  std::filesystem::remove_all(folder / "from");
  std::filesystem::remove_all(folder / "merged");
  convert({folder / "model.h5", folder / "to", "", "100 MB"});
  EXPECT_LT(peak_resident_bytes(), bound);
  EXPECT_GT(peak_resident_bytes(), 0);
}

}  // namespace
}  // namespace qnext
