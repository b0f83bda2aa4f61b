// SPDX-License-Identifier: Apache-2.0
#include "app/decoder.hpp"
#include "app/generation.hpp"
#include "app/trained_model.hpp"
#include "core/profile.hpp"
#include "tests/model_support.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace qnext {
namespace {

// Heads that share keys, a head wider than a tile's lanes, more layers than one of each kind.
ModelConfig config_of_decoding() {
  ModelConfig config = test::small_model_config();
  config.mixers = {Mixer::delta_net, Mixer::attention, Mixer::delta_net, Mixer::attention};
  config.mlps = {Mlp::experts, Mlp::dense, Mlp::experts, Mlp::experts};
  config.balance = {};
  return config;
}

template <class Storage>
struct Alone {
  ProcessGrid grid;
  TrainedModel<Storage> trained;
  Alone() : trained(config_of_decoding(), false) { initialise(trained.table, 3); }
};

std::vector<int> tokens_of(int count, int seed) {
  std::vector<int> tokens(count);
  const std::uint64_t key = random_key(seed, "tokens");
  for (int i = 0; i < count; ++i) {
    tokens[i] = static_cast<int>(random_bits(key, i) % 37);
  }
  return tokens;
}

using Rows = std::vector<std::vector<double>>;

// The logits behind the tokens of a document: behind its first piece of `read` tokens, and behind
// each step.
template <class Storage>
Rows alone(const Model<Storage>& model, const std::vector<int>& tokens, int read) {
  const ProcessGrid grid;
  Decoder<Storage> decoder(model, grid, {1, 800, 800});
  decoder.begin(0);
  Rows logits{decoder.read(0, {tokens.begin(), tokens.begin() + read})};
  for (std::size_t i = read; i < tokens.size(); ++i) {
    logits.push_back(decoder.step({{0, {tokens[i]}}}).front());
  }
  return logits;
}

template <class Storage>
class Decoding : public testing::Test {};
using Storages = testing::Types<double, float, bf16>;
TYPED_TEST_SUITE(Decoding, Storages);

// Documents of many ages, one of them across the places where its keys are cut in larger parts (16
// x 48 keys), step together, more of them than one product takes at once, and in other company each
// time. Not a bit of any differs from the document alone.
TYPED_TEST(Decoding, DocumentsStepTogetherAsAlone) {
  const Alone<TypeParam> model;
  const std::vector<int> read{1, 7, 47, 48, 3, 12, 5, 96, 20, 64, 33, 2, 90, 13, 40, 50, 71, 766};
  const int documents = static_cast<int>(read.size()), steps = 4;
  std::vector<std::vector<int>> tokens;
  std::vector<Rows> expected;
  for (int n = 0; n < documents; ++n) {
    tokens.push_back(tokens_of(read[n] + steps, n));
    expected.push_back(alone(model.trained.model, tokens[n], read[n]));
  }
  Decoder<TypeParam> decoder(model.trained.model, model.grid, {documents, 800, 800});
  for (int n = documents - 1; n >= 0; --n) {
    decoder.begin(n);
    EXPECT_EQ(decoder.read(n, {tokens[n].begin(), tokens[n].begin() + read[n]}).front(),
              expected[n].front());
  }
  std::vector<int> done(documents, 0);
  for (int company = 0; *std::min_element(done.begin(), done.end()) < steps; ++company) {
    std::vector<typename Decoder<TypeParam>::Next> next;
    for (int n = 0; n < documents; ++n) {
      if (done[n] < steps && (company + n) % 3 != 0) {
        next.push_back({n, {tokens[n][read[n] + done[n]]}});
      }
    }
    const Rows logits = decoder.step(next);
    for (std::size_t i = 0; i < next.size(); ++i) {
      const int n = next[i].slot;
      ASSERT_EQ(logits[i], expected[n][++done[n]]) << "document " << n << " step " << done[n];
    }
  }
}

// What was in a slot before does not matter.
TYPED_TEST(Decoding, ASlotForgetsItsLastDocument) {
  const Alone<TypeParam> model;
  const auto first = tokens_of(30, 1), second = tokens_of(20, 2);
  Decoder<TypeParam> decoder(model.trained.model, model.grid, {1, 40, 40});
  decoder.begin(0);
  decoder.read(0, first);
  decoder.step({{0, {5}}});
  decoder.begin(0);
  EXPECT_EQ(decoder.read(0, second).front(), alone(model.trained.model, second, 20).front());
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(a[i] - b[i]));
  }
  return most;
}

// How far two orders of the sums of a pass may be apart: a sum of n terms in another order is the
// sum of the same terms, each with an error of at most n epsilon, as if every weight had one of n
// epsilon; n = 128 is above every length of a sum here. What errors of one epsilon in all weights
// do is the largest of what they do in some runs, plus one epsilon of the number.
template <class LogitsOf>
double bound_of(const std::vector<double>& one, const LogitsOf& logits_of) {
  double bound = 0.0, size = 0.0;
  for (const double logit : one) {
    size = std::max(size, std::abs(logit));
  }
  for (int member = 1; member <= 3; ++member) {
    Alone<double> other;
    move_by_one_rounding(other.trained.table, member);
    bound = std::max(bound, largest_difference(one, logits_of(other.trained.model)));
  }
  bound = 128.0 * (bound + 0x1.0p-52 * size);
  EXPECT_LT(bound, 1e-6);
  return bound;
}

TEST(DecodingOfPieces, GivesTheLogitsOfOnePiece) {
  const Alone<double> model;
  const auto tokens = tokens_of(110, 4);
  const auto logits_of = [&](const Model<double>& of, int piece) {
    const ProcessGrid grid;
    Decoder<double> decoder(of, grid, {1, 110, piece});
    decoder.begin(0);
    std::vector<double> logits;
    for (int i = 0; i < 110; i += piece) {
      logits =
          decoder.read(0, {tokens.begin() + i, tokens.begin() + std::min(110, i + piece)}).front();
    }
    return logits;
  };
  const auto whole = logits_of(model.trained.model, 110);
  const double bound = bound_of(whole, [&](const auto& of) { return logits_of(of, 110); });
  for (const int piece : {1, 2, 7, 16, 64, 65, 109}) {
    EXPECT_LE(largest_difference(logits_of(model.trained.model, piece), whole), bound) << piece;
  }
}

// Tokens that are checked together have the logits of steps, and a document goes on behind any of
// them as if the others had never been: whatever is taken back leaves no bit. Two documents, one of
// them across the place where its keys are cut in larger parts.
TYPED_TEST(Decoding, ACheckIsStepsAndTakesBackWhatDoesNotStay) {
  const Alone<TypeParam> model;
  const std::vector<int> read{764, 5};
  const int total = 18;
  std::vector<std::vector<int>> tokens;
  std::vector<Rows> expected;
  for (int n = 0; n < 2; ++n) {
    tokens.push_back(tokens_of(read[n] + total, n));
    expected.push_back(alone(model.trained.model, tokens[n], read[n]));
  }
  Decoder<TypeParam> decoder(model.trained.model, model.grid, {2, 800, 800, 3});
  for (int n = 0; n < 2; ++n) {
    decoder.begin(n);
    decoder.read(n, {tokens[n].begin(), tokens[n].begin() + read[n]});
  }
  std::vector<int> done(2, 0);
  for (int round = 0; done[0] + 4 <= total && done[1] + 4 <= total; ++round) {
    const int stay[] = {1 + round % 4, 1 + (round * 3 + 2) % 4};
    std::vector<typename Decoder<TypeParam>::Next> next;
    for (int n = 0; n < 2; ++n) {
      const auto begin = tokens[n].begin() + read[n] + done[n];
      next.push_back({n, {begin, begin + 4}});
      for (int i = stay[n]; i < 4; ++i) {
        next.back().tokens[i] = (next.back().tokens[i] + 1 + round) % 37;  // will not stay
      }
    }
    const Rows logits = decoder.check(next);
    for (int n = 0; n < 2; ++n) {
      for (int i = 0; i < stay[n]; ++i) {
        ASSERT_EQ(logits[4 * n + i], expected[n][done[n] + i + 1])
            << "document " << n << " token " << done[n] + i;
      }
      decoder.accept(n, stay[n]);
      done[n] += stay[n];
      EXPECT_EQ(decoder.length(n), read[n] + done[n]);
    }
  }
}

// The logits of drafts behind a text, read in pieces and continued by steps that keep some tokens,
// are those that the MTP module gives in training; a further draft is the module on its own output.
TEST(DecodingWithDrafts, TheModuleSeesWhatItSeesInTraining) {
  const Alone<double> model;
  const auto tokens = tokens_of(40, 6);
  const int read = 31, stay = 3, length = read + stay;
  const auto in_training = [&](const Model<double>& of) {
    Arena plan;
    const MicrobatchShape shape{length, 1, 1};
    const auto reserve = [&](Arena& arena) {
      return std::pair(of.reserve_saved(arena, shape), of.reserve_work(arena, shape));
    };
    reserve(plan);
    Arena arena(plan.peak());
    auto [saved, work] = reserve(arena);
    const std::vector<int> labels(tokens.begin() + 1, tokens.begin() + length + 1);
    const Microbatch batch{
        test::TestBatch::to_device_ids({tokens.begin(), tokens.begin() + length}),
        test::TestBatch::to_device_ids(labels), make_documents({length})};
    of.forward(Exec{}, batch, Dropout{}, saved, work);
    const Tensor<double, 2> logits("logits", length, 37);
    of.logits(Exec{}, saved.mtp.normed, logits);
    const auto all = test::to_host(logits);
    return std::vector<double>(all.end() - 37, all.end());
  };
  const auto drafted = [&](const Model<double>& of) {
    const ProcessGrid grid;
    Decoder<double> decoder(of, grid, {1, 48, 13, 3});
    decoder.begin(0);
    for (int i = 0; i < read; i += 13) {
      const int end = std::min(read, i + 13);
      decoder.read(0, {tokens.begin() + i, tokens.begin() + end}, end < read ? tokens[end] : -1);
    }
    decoder.draft({{0, {tokens[read]}}});
    decoder.draft_more({{0, {5}}}, 2);  // of another text
    decoder.check({{0, {tokens[read], tokens[read + 1], tokens[read + 2], 9}}});
    decoder.accept(0, stay);
    EXPECT_EQ(decoder.unseen(0), stay);
    return decoder.draft({{0, {tokens.begin() + read + 1, tokens.begin() + length + 1}}}).front();
  };
  const auto wanted = in_training(model.trained.model);
  EXPECT_LE(largest_difference(drafted(model.trained.model), wanted),
            bound_of(wanted, in_training));
}

// Texts of a batch, with settings of their own, are those of each request alone.
TYPED_TEST(Decoding, RequestsAreWrittenTogetherAsAlone) {
  const Alone<TypeParam> model;
  const auto text = bytes_as_tokens();
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 11; ++i) {
    GenerationRequest request{tokens_of(1 + 9 * i, i), {.seed = 5}, 3 + 2 * i, {}, {}};
    request.sampling.temperature = i % 3 == 0 ? 0.0 : 0.5 + 0.1 * i;
    request.sampling.top_k = i % 4;
    request.sampling.top_p = i % 2 == 0 ? 1.0 : 0.8;
    request.sampling.repetition_penalty = 1.0 + 0.1 * (i % 3);
    request.sampling.presence_penalty = 0.2 * (i % 2);
    if (i == 7) {
      request.stop_tokens = {3, 14, 15, 9, 26};
    }
    requests.push_back(request);
  }
  Generation<TypeParam> together(model.trained.model, model.grid, {11, 200, 30}, *text);
  Generation<TypeParam> one(model.trained.model, model.grid, {1, 200, 30}, *text);
  const auto answers = together.write(requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(answers[i].tokens, one.write({requests[i]}).front().tokens) << "request " << i;
  }
}

// What a listener hears and what an answer holds end in front of a stop text, also where its bytes
// come one by one; a stop token is no part of the text.
TEST(DecodingOfTexts, EndsWhereAStopSays) {
  const Alone<float> model;
  const auto text = bytes_as_tokens();
  Generation<float> generation(model.trained.model, model.grid, {1, 64, 8}, *text);
  GenerationRequest request{{1, 2, 3}, {.temperature = 0.0}, 24, {}, {}};
  const GenerationAnswer whole = generation.write({request}).front();
  ASSERT_EQ(whole.tokens.size(), 24u);
  EXPECT_EQ(whole.ending, Ending::length);
  ASSERT_EQ(whole.text.size(), 24u);
  // Three bytes of the text, and something that begins like them and never comes.
  request.stop_texts = {whole.text.substr(9, 2) + "\xff", whole.text.substr(10, 3)};
  const std::size_t stop = whole.text.find(request.stop_texts[1]);
  std::string heard;
  const GenerationAnswer stopped =
      generation.write({request}, [&](int, std::string_view piece) { heard += piece; }).front();
  EXPECT_EQ(stopped.ending, Ending::stop_text);
  EXPECT_EQ(stopped.text, whole.text.substr(0, stop));
  EXPECT_EQ(heard, stopped.text);
  EXPECT_EQ(stopped.tokens,
            std::vector<int>(whole.tokens.begin(), whole.tokens.begin() + stop + 3));

  request.stop_texts = {};
  request.stop_tokens = {36, whole.tokens[5]};
  const std::size_t end =
      std::find_first_of(whole.tokens.begin(), whole.tokens.end(), request.stop_tokens.begin(),
                         request.stop_tokens.end()) -
      whole.tokens.begin();
  const GenerationAnswer ended = generation.write({request}).front();
  EXPECT_EQ(ended.ending, Ending::stop_token);
  EXPECT_EQ(ended.tokens.size(), end + 1);
  EXPECT_EQ(ended.text, whole.text.substr(0, end));
}

// Of all that drafting, checking and taking back do, two things cross between host and device:
// whole numbers to the device, and logits to the host.
TEST(DecodingWithDrafts, NoStateIsCopied) {
  const Alone<float> model;
  Decoder<float> decoder(model.trained.model, model.grid, {1, 48, 13, 3});
  decoder.begin(0);
  decoder.read(0, tokens_of(13, 1));
  Profile::start();
  for (int stay = 1; stay <= 4; ++stay) {
    decoder.draft({{0, tokens_of(decoder.unseen(0), 2)}});
    decoder.draft_more({{0, {5}}}, 2);
    decoder.check({{0, {1, 2, 3, 4}}});
    decoder.accept(0, stay);
  }
  Profile::stop();
  int copies = 0;
  for (const Profile::Line& line : Profile::lines()) {
    if (line.label.starts_with("copy to ")) {
      EXPECT_TRUE(line.label == "copy to decoder_numbers" || line.label == "copy to logits")
          << line.label;
      copies += static_cast<int>(line.calls);
    }
  }
  EXPECT_GT(copies, 0);
}

// Greedy texts do not know of drafts.
TYPED_TEST(Decoding, GreedyTextsAreTheSameWithDrafts) {
  const Alone<TypeParam> model;
  const auto text = bytes_as_tokens();
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 6; ++i) {
    requests.push_back({tokens_of(1 + 7 * i, i), {.temperature = 0.0}, 40 + i, {}, {}});
    requests.back().sampling.repetition_penalty = i % 2 == 0 ? 1.0 : 1.3;
  }
  Generation<TypeParam> plain(model.trained.model, model.grid, {6, 100, 16}, *text);
  const auto expected = plain.write(requests);
  for (int drafts = 1; drafts <= 4; ++drafts) {
    Generation<TypeParam> drafting(model.trained.model, model.grid, {6, 100, 16, drafts}, *text);
    const auto answers = drafting.write(requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(answers[i].tokens, expected[i].tokens) << drafts << " drafts, request " << i;
    }
    EXPECT_GT(drafting.pace().accepted, 0);
    EXPECT_LT(drafting.pace().accepted, drafting.pace().drafted);
  }
}

// The second token of a text has the probabilities sum_a p(a) p(b | a), also where it is a draft
// that stays or what is drawn in its place. The bound is that of the draws in test_sampling.
TEST(DecodingWithDrafts, ATextHasTheProbabilitiesOfTheModel) {
  const Alone<double> model;
  const auto text = bytes_as_tokens();
  const Sampling sampling{.temperature = 0.8};
  const auto prompt = tokens_of(9, 8);
  Decoder<double> decoder(model.trained.model, model.grid, {1, 16, 16});
  decoder.begin(0);
  const auto first = probabilities(decoder.read(0, prompt).front(), sampling);
  std::vector<double> second(37, 0.0);
  for (int a = 0; a < 37; ++a) {
    decoder.begin(0);
    decoder.read(0, prompt);
    const auto behind = probabilities(decoder.step({{0, {a}}}).front(), sampling);
    for (int b = 0; b < 37; ++b) {
      second[b] += first[a] * behind[b];
    }
  }
  const int batch = 20, draws = 10000;
  Generation<double> generation(model.trained.model, model.grid, {batch, 16, 16, 2}, *text);
  std::vector<int> counts(37, 0);
  for (int i = 0; i < draws; i += batch) {
    std::vector<GenerationRequest> requests(batch, {prompt, sampling, 2, {}, {}});
    for (int j = 0; j < batch; ++j) {
      requests[j].sampling.seed = i + j;
    }
    for (const GenerationAnswer& answer : generation.write(requests)) {
      ++counts[answer.tokens[1]];
    }
  }
  const double x = std::log(1e6);
  double statistic = 0.0, others = 0.0;
  int freedom = 0, of_others = 0;
  for (int b = 0; b < 37; ++b) {
    const double expected = draws * second[b];
    if (expected < 20.0) {  // too few for Pearson's statistic: taken together
      others += expected;
      of_others += counts[b];
      continue;
    }
    ++freedom;
    statistic += (counts[b] - expected) * (counts[b] - expected) / expected;
  }
  if (others > 0.0) {
    statistic += (of_others - others) * (of_others - others) / others;
  }
  EXPECT_LT(statistic, freedom + 2.0 * std::sqrt(freedom * x) + 2.0 * x);
  EXPECT_GT(generation.pace().accepted, draws / 100);
}

}  // namespace
}  // namespace qnext
