// SPDX-License-Identifier: Apache-2.0
#include "tests/model_support.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace qnext {
namespace {

template <class Storage>
std::vector<std::vector<double>> all_gradients(const test::ModelUnderTest<Storage>& fixture) {
  std::vector<std::vector<double>> gradients;
  for (const Parameter& row : fixture.table.rows()) {
    if (row.type == DataType::float64) {
      gradients.push_back(test::to_host(fixture.table.template gradients<double>(row)));
    } else {
      gradients.push_back(test::to_host(fixture.table.template gradients<float>(row)));
    }
  }
  return gradients;
}

template <class Storage>
void expect_recomputed_equals_saved() {
  ModelConfig config = test::small_model_config();
  const test::TestBatch batch({23, 1, 9}, config.vocabulary, 5);
  const Dropout dropout{0.1, 77};
  double loss = 0.0;
  std::vector<std::vector<double>> gradients;
  for (const Recompute policy : {Recompute::none, Recompute::mixer, Recompute::block}) {
    config.recompute = policy;
    test::ModelUnderTest<Storage> fixture(config);
    const double this_loss = fixture.loss(batch, true, dropout);
    const auto these = all_gradients(fixture);
    if (policy == Recompute::none) {
      loss = this_loss;
      gradients = these;
      continue;
    }
    EXPECT_EQ(this_loss, loss);
    for (std::size_t i = 0; i < these.size(); ++i) {
      ASSERT_EQ(these[i], gradients[i])
          << fixture.table.rows()[i].name << ", policy " << static_cast<int>(policy);
    }
  }
}

TEST(Model, RecomputedGradientsAreTheSameBitsInFloat) {
  expect_recomputed_equals_saved<float>();
}
TEST(Model, RecomputedGradientsAreTheSameBitsInBf16) {
  expect_recomputed_equals_saved<bf16>();
}

TEST(Model, RecomputationTakesLessMemory) {
  ModelConfig config = test::small_model_config();
  std::int64_t last = 0;
  for (const Recompute policy : {Recompute::block, Recompute::mixer, Recompute::none}) {
    config.recompute = policy;
    ParameterTable table;
    const Model<float> model(config, ProcessGrid{}, table);
    Arena plan;
    model.reserve_saved(plan, {512, 1, 1});
    EXPECT_GT(plan.peak(), last);
    last = plan.peak();
  }
}

TEST(Model, TheSamePassTwiceGivesTheSameBits) {
  const ModelConfig config = test::small_model_config();
  const test::TestBatch batch({23, 1, 9}, config.vocabulary, 5);
  test::ModelUnderTest<bf16> once(config), again(config);
  EXPECT_EQ(once.loss(batch, true), again.loss(batch, true));
  EXPECT_EQ(all_gradients(once), all_gradients(again));
}

// The hidden states of a document do not depend, in any bit, on the documents beside it.
TEST(Model, DocumentsDoNotLeak) {
  ModelConfig config = test::small_model_config();
  const test::TestBatch batch({19, 14}, config.vocabulary, 5);
  test::ModelUnderTest<double> fixture(config);
  fixture.loss(batch, false);
  const auto packed = test::to_host(fixture.saved.normed);

  test::TestBatch other = batch;  // the same second document behind another first one
  for (int t = 0; t < 19; ++t) {
    other.tokens[t] = (other.tokens[t] + 1 + t) % config.vocabulary;
  }
  other.batch.tokens = test::TestBatch::to_device_ids(other.tokens);
  fixture.loss(other, false);
  const auto beside = test::to_host(fixture.saved.normed);
  const std::size_t border = 19u * config.width;
  EXPECT_TRUE(std::equal(packed.begin() + border, packed.end(), beside.begin() + border));
  EXPECT_FALSE(std::equal(packed.begin(), packed.begin() + border, beside.begin()));
}

// The loss of the second document alone, with that of multi-token prediction, has no gradient for
// anything that only the first one holds: rows of the embedding that it alone reads are exactly
// zero. Balance losses are off, because they look at all tokens of a microbatch.
TEST(Model, GradientsDoNotLeakBetweenDocuments) {
  ModelConfig config = test::small_model_config();
  config.balance = {};
  test::TestBatch batch({19, 14}, config.vocabulary, 5);
  const int half = config.vocabulary / 2;
  for (int t = 0; t < 33; ++t) {
    batch.tokens[t] = batch.tokens[t] % half + (t < 19 ? 0 : half);
    batch.labels[t] = t < 19 || t == 32 ? -1 : half + batch.labels[t] % half;
  }
  batch.batch.tokens = test::TestBatch::to_device_ids(batch.tokens);
  batch.batch.labels = test::TestBatch::to_device_ids(batch.labels);
  test::ModelUnderTest<double> fixture(config);
  fixture.loss(batch, true);
  const auto gradient = fixture.gradient(*fixture.table.find("model.embed_tokens.weight"));
  for (int t = 0; t < 32; ++t) {  // nothing is predicted from the last token
    const auto begin = gradient.begin() + std::ptrdiff_t{batch.tokens[t]} * config.width;
    const bool zero = std::all_of(begin, begin + config.width, [](double g) { return g == 0.0; });
    EXPECT_EQ(zero, t < 19) << "token " << t;
  }
}

// Decoding token by token behind a prefill gives the rows of the whole forward pass. The chunked
// and the recurrent form of the delta rule add in another order: over 33 tokens and three layers of
// sums of at most 37 terms, with activations of order ten, 1e-10 holds every chain of roundings in
// double.
TEST(Model, StepsContinueAPrefill) {
  ModelConfig config = test::small_model_config();
  config.mtp_modules = 0;
  const int T = 33, first = 20;
  const test::TestBatch whole({T}, config.vocabulary, 5);
  test::ModelUnderTest<double> fixture(config);
  fixture.loss(whole, false);
  const auto expected = test::to_host(fixture.saved.normed);

  const auto piece = [&](int begin, int end) {
    const std::vector<int> ids(whole.tokens.begin() + begin, whole.tokens.begin() + end);
    return Microbatch{
        test::TestBatch::to_device_ids(ids), {}, make_documents({end - begin}, 1, {begin})};
  };
  Arena plan;
  fixture.model.reserve_state(plan, 1, T);
  Arena state_arena(plan.peak());
  auto state = fixture.model.reserve_state(state_arena, 1, T);
  fixture.model.clear(Exec{}, state);
  fixture.reserve({first, 1, 1});
  fixture.model.forward(Exec{}, piece(0, first), Dropout{}, fixture.saved, fixture.work, &state,
                        &state);
  auto actual = test::to_host(fixture.saved.normed);
  for (int t = first; t < T; ++t) {
    fixture.reserve({1, 1, 1});
    fixture.model.step(Exec{}, piece(t, t + 1), state, fixture.saved, fixture.work);
    const auto row = test::to_host(fixture.saved.normed);
    actual.insert(actual.end(), row.begin(), row.end());
  }
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], 1e-10) << "token " << i / config.width;
  }
}

}  // namespace
}  // namespace qnext
