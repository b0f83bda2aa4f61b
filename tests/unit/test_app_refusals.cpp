// SPDX-License-Identifier: Apache-2.0
//
// What the parts of app refuse that no command line can hand them wrongly, or not here: a processor
// without instructions, a checkpoint of another model, files in the way.
#include "app/decoder.hpp"
#include "app/hugging_face_names.hpp"
#include "app/processor.hpp"
#include "app/restart.hpp"
#include "app/run_folder.hpp"
#include "app/run_log.hpp"
#include "app/sampling.hpp"
#include "io/deck.hpp"
#include "tests/model_support.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

namespace qnext {
namespace {

using test::message_of;
using test::TemporaryFolder;

void expect_sentence(const std::string& sentence, const std::string& message) {
  EXPECT_NE(message.find(sentence), std::string::npos) << message;
}

TEST(AppRefuses, AProcessorWithoutInstructions) {
  const ProcessorFeature features[] = {
      {"avx", true, true}, {"avx2", true, false}, {"fma", true, false}, {"amx", false, false}};
  EXPECT_EQ(message_of([&] { check_processor(features); }),
            "this qnext was built for a CPU with avx2 fma, which this CPU lacks; build it on this "
            "machine, or anywhere with -DQNEXT_NATIVE=OFF");
  EXPECT_NO_THROW(check_processor());
}

TEST(AppRefuses, ADocumentThatIsEmptyOrOutgrowsItsRoom) {
  test::ModelUnderTest<float> fixture(test::small_model_config());
  Decoder<float> decoder(fixture.model, 4, 2);
  expect_sentence("no tokens to decode behind", message_of([&] { decoder.feed({}); }));
  decoder.feed({1, 2, 3});
  expect_sentence("the document outgrows its 4 tokens", message_of([&] { decoder.feed({4, 5}); }));
}

TEST(AppRefuses, ToDrawFromNothing) {
  expect_sentence("no logits to draw from", message_of([] { sample({}, {}, 0); }));
}

TEST(AppRefuses, StackedExpertsOfTwoExtents) {
  Parameter row{.name = "x.mlp.experts.down_proj", .shard = Shard::whole({5, 3})};
  expect_sentence("x.mlp.experts.down_proj: stacked experts have three extents",
                  message_of([&] { hugging_face_tensors(row, ExpertLayout::one_by_one); }));
}

TEST(AppRefuses, CountsOfAnotherModel) {
  const Tensor<double, 2> counts("counts", 2, 3);
  CheckpointContent content = restart_content({}, counts);
  content.record("balance_loss").set("previous_counts", std::vector<double>(5));
  EXPECT_EQ(message_of([&] { restart_state(content, counts); }),
            "balance_loss.previous_counts: the checkpoint has 5 numbers, this model wants 6");
}

TEST(AppRefuses, ACheckpointThatIsNotThere) {
  EXPECT_EQ(message_of([] { checkpoint_of("nowhere"); }),
            "nowhere: there is no such checkpoint or run folder");
}

// A folder where a file is to be written.
TEST(AppRefuses, FilesOfARunThatCannotBeWritten) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "run/deck.yaml");
  std::filesystem::create_directories(folder / "run/log.txt");
  const RunFolder run(folder / "run");
  EXPECT_EQ(message_of([&] { run.write_deck(Deck::parse("run: {}", "d.yaml")); }),
            folder / "run/deck.yaml" + ": cannot be written: Is a directory");
  EXPECT_EQ(message_of([&] { RunLog(run.file("log.txt"), Communicator()); }),
            folder / "run/log.txt" + ": cannot be written: Is a directory");
}

}  // namespace
}  // namespace qnext
