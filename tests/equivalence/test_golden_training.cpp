// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "app/golden_model.hpp"
#include "core/require.hpp"
#include "io/json.hpp"
#include "parallel/communicator.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace qnext {
namespace {

namespace fs = std::filesystem;

const Json& at(const Json& object, const char* name) {
  const Json* const value = object.find(name);
  require(value != nullptr, std::string("no value ") + name);
  return *value;
}

std::string shared() {
  return std::getenv("QNEXT_SHARED");
}

// The deck of the golden run: 20 steps of AdamW from a Hugging Face folder, text in file order.
fs::path write_deck(const std::string& precision) {
  const fs::path folder = fs::temp_directory_path() / ("qnext_golden_training_" + precision);
  fs::remove_all(folder);
  fs::create_directories(folder);
  std::ofstream(folder / "deck.yaml")
      << "run: {name: golden, steps: 20, peak_flops: 1, precision: " << precision << "}\n"
      << "model:\n"
      << "  init: " << shared() << "/golden/tiny/hf\n"
      << "  experts: {balance_loss: {form: huggingface, coefficient: 0.001}}\n"
      << "  multi_token_prediction: {modules: 0}\n"
      << "data: {train: " << shared()
      << "/data/tinyshakespeare.txt, shuffle: false, sequence: 64,\n"
      << "       batch: 2}\n"
      << "optimizer: {learning_rate: {peak: 0.001, schedule: constant}}\n"
      << "output: {folder: " << folder.string() << "/run, log_every: 1, checkpoint_every: 0}\n";
  return folder;
}

struct Column {
  const char* golden;  // of the rows of training.json
  std::size_t place;
  const char* ours;
  double beside_spread;  // of the float bound
};
constexpr Column columns[] = {{"loss_ce", 2, "loss", 1e-6},
                              {"loss_aux", 3, "loss_balance", 1e-6},
                              {"grad_norm", 4, "gradient_norm", 1e-5}};

// Bounds as the golden data state them: in double 1e-9; in float four times the largest spread of
// six float runs up to that step, and what rounds a single number.
double bound(const Json& golden, const std::string& precision, const Column& column, int step) {
  if (precision == "double") {
    return 1e-9;
  }
  const auto& spread = at(at(golden, "float32_spread"), column.golden).list("training");
  double largest = 0.0;
  for (int s = 0; s <= step; ++s) {
    largest = std::max(largest, spread[s].real("training"));
  }
  return 4.0 * largest + column.beside_spread;
}

class GoldenTraining : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTraining, TwentyStepsFollowTransformers) {
  const fs::path folder = write_deck(GetParam());
  ASSERT_EQ(train({.deck = (folder / "deck.yaml").string(), .overrides = {}}, Communicator{}),
            Status::done);
  const Json golden = Json::read(shared() + "/golden/training.json");
  std::ifstream metrics(folder / "run" / "metrics.jsonl");
  std::string line;
  for (int step = 0; step < 20; ++step) {
    ASSERT_TRUE(std::getline(metrics, line)) << "step " << step + 1;
    const Json ours = Json::parse(line, "metrics.jsonl");
    const auto& row = at(golden, "float64").list("training")[step].list("training");
    for (const Column& column : columns) {
      EXPECT_NEAR(at(ours, column.ours).real("metrics"), row[column.place].real("training"),
                  bound(golden, GetParam(), column, step))
          << column.golden << " of step " << step + 1;
    }
  }
  fs::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(Precision, GoldenTraining, testing::Values("double", "float"));

// Lists of chosen experts that do not fit the model.
TEST(GoldenModel, RefusesForeignChoices) {
  GoldenModel<float> model(shared() + "/golden/tiny/hf", 64);
  const auto message = [&](const GoldenModel<float>::Choices& choices) {
    try {
      model.run({1, 2, 3}, {3}, choices);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const std::string routers = std::to_string(model.routers());
  EXPECT_NE(message(GoldenModel<float>::Choices(99)).find("99 lists of experts for " + routers),
            std::string::npos);
  EXPECT_NE(message({{1}}).find("1 chosen experts for "), std::string::npos) << message({{1}});
}

}  // namespace
}  // namespace qnext
