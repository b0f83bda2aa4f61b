// SPDX-License-Identifier: Apache-2.0
//
// What the parts of app refuse that no command line can hand them wrongly, or not here: a processor
// without instructions, a checkpoint of another model, files in the way.
#include "app/decoder.hpp"
#include "app/generation.hpp"
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

TEST(AppRefuses, DocumentsThatOutgrowTheDecoder) {
  test::ModelUnderTest<float> fixture(test::small_model_config());
  const ProcessGrid alone;
  const DecoderLimits limits{.documents = 1, .capacity = 4, .piece = 2};
  Decoder<float> decoder(fixture.model, alone, limits);
  expect_sentence("3 tokens are read at once, wanted 2 at most", message_of([&] {
                    decoder.read(0, {1, 2, 3});
                  }));
  decoder.read(0, {1, 2});
  decoder.read(0, {3, 4});
  expect_sentence("the document outgrows its 4 tokens", message_of([&] { decoder.read(0, {5}); }));
  expect_sentence("the document outgrows its 4 tokens", message_of([&] {
                    decoder.step({{0, {5}}});
                  }));
  const DecoderLimits many{.documents = 65, .capacity = 4, .piece = 2};
  expect_sentence("65 tokens step together, at most 64 can",
                  message_of([&] { Decoder<float>(fixture.model, alone, many); }));
  const DecoderLimits drafting{.documents = 1, .capacity = 8, .piece = 2, .drafts = 1};
  Decoder<float> drafts(fixture.model, alone, drafting);
  drafts.begin(0);
  drafts.read(0, {1, 2});
  expect_sentence("the MTP module is given 2 tokens, wanted are the 1 that it has not seen",
                  message_of([&] {
                    drafts.draft({{0, {3, 4}}});
                  }));
  ModelConfig plain = test::small_model_config();
  plain.mtp_modules = 0;
  test::ModelUnderTest<float> without(plain);
  expect_sentence("drafts want a model with an MTP module",
                  message_of([&] { Decoder<float>(without.model, alone, drafting); }));
  DecoderBatch batch(1, 1);
  expect_sentence("a pass of the decoder has room for 8 numbers", message_of([&] {
                    batch.make(Exec{}, {{{1, 2}, 0, 0, 0, 0}, {{3}, 0, 0, 0, 0}});
                  }));
  const auto text = bytes_as_tokens();
  Generation<float> generation(fixture.model, alone, limits, *text);
  expect_sentence("2 requests at once, at most 1 are worked on",
                  message_of([&] { generation.write(std::vector<GenerationRequest>(2)); }));
  ProcessGrid context;
  context.degrees.context = 2;
  expect_sentence("generation is not divided over context ranks",
                  message_of([&] { Generation<float>(fixture.model, context, limits, *text); }));
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
