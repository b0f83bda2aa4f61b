// SPDX-License-Identifier: Apache-2.0
#include "app/flops.hpp"
#include "app/run_config.hpp"
#include "io/deck.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>

namespace qnext {
namespace {

ModelConfig model_80b(int mtp_modules) {
  const std::string source = std::getenv("QNEXT_SOURCE");
  return read_run_config(
             Deck::read(source + "/inputs/qwen3_next_80b.yaml",
                        {"model.multi_token_prediction.modules=" + std::to_string(mtp_modules)}))
      .model;
}

// Integers below 2^53: every number is exact.
TEST(Flops, PartsOfTheReleasedModelAt4096Tokens) {
  std::map<std::string, double> parts;
  for (const FlopPart& part : flop_parts(model_80b(0), 4096.0)) {
    parts[part.name] = part.multiply_adds;
  }
  EXPECT_EQ(parts["delta net"], 35815424.0);
  EXPECT_EQ(parts["attention, products"], 27262976.0);
  EXPECT_EQ(parts["attention, scores"], 16777216.0);
  EXPECT_EQ(parts["experts"], 34603008.0);
  EXPECT_EQ(parts["logits"], 311164928.0);
  EXPECT_EQ(parts.size(), 5u);
}

TEST(Flops, TotalOfTheReleasedModel) {
  EXPECT_EQ(
      flops_per_token(model_80b(0), 4096.0),
      6.0 * (36 * 35815424.0 + 12 * (27262976.0 + 16777216.0) + 48 * 34603008.0 + 311164928.0));
  EXPECT_NEAR(flops_per_token(model_80b(0), 4096.0), 22.740e9, 0.0005e9);
  EXPECT_NEAR(flops_per_token(model_80b(1), 4096.0), 25.129e9, 0.0005e9);
}

TEST(Flops, OfAdaptersAloneLackOneProductOfThree) {
  ModelConfig model = model_80b(0);
  const double all = flops_per_token(model, 4096.0);
  model.adapters = {.rank = 8, .targets = {"q_proj"}};
  EXPECT_EQ(flops_per_token(model, 4096.0), all / 3.0 * 2.0);
}

}  // namespace
}  // namespace qnext
