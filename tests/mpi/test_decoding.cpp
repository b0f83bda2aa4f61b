// SPDX-License-Identifier: Apache-2.0
#include "app/decoder.hpp"
#include "app/generation.hpp"
#include "app/pipeline_cut.hpp"
#include "app/trained_model.hpp"
#include "tests/mpi/rank_case.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::world;

// Layers of every kind for up to eight stages, heads and experts for up to eight ranks; vocabulary
// and widths of the MLPs are no multiples of them.
ModelConfig config_of_decoding() {
  ModelConfig config = test::small_model_config();
  config.vocabulary = 43;
  config.mixers.clear();
  config.mlps.clear();
  for (int i = 0; i < 7; ++i) {
    config.mixers.push_back(i % 3 == 1 ? Mixer::attention : Mixer::delta_net);
    config.mlps.push_back(i % 4 == 2 ? Mlp::dense : Mlp::experts);
  }
  config.layer.delta_net.key_heads = 8;
  config.layer.delta_net.value_heads = 16;
  config.layer.delta_net.value_width = 4;
  config.layer.attention.heads = 8;
  config.layer.experts.experts = 8;
  config.layer.experts.shared_width = 11;
  config.layer.dense.width = 22;
  config.balance = {};
  return config;
}

struct Case {
  Degrees degrees;
};

void PrintTo(const Case& c, std::ostream* out) {
  const Degrees& d = c.degrees;
  *out << "tensor " << d.tensor << " pipeline " << d.pipeline << " expert " << d.expert << " data "
       << d.data;
}

std::string name_of(const testing::TestParamInfo<Case>& info) {
  const Degrees& d = info.param.degrees;
  return "T" + std::to_string(d.tensor) + "P" + std::to_string(d.pipeline) + "E" +
         std::to_string(d.expert) + "D" + std::to_string(d.data);
}

// Every way to share out 2 and 4 ranks in powers of two; of 8 each degree alone, and all of them.
std::vector<Case> cases(int ranks) {
  std::vector<Case> all;
  for (int tensor = 1; tensor <= ranks; tensor *= 2) {
    for (int pipeline = 1; tensor * pipeline <= ranks; pipeline *= 2) {
      const int data = ranks / (tensor * pipeline);
      for (int expert = 1; expert <= tensor * data; expert *= 2) {
        const int largest = std::max({tensor, pipeline, data});
        const bool mixed = tensor > 1 && pipeline > 1 && data > 1;
        if (ranks <= 4 || mixed || (largest == ranks && (expert == 1 || expert == ranks))) {
          all.push_back({{.tensor = tensor, .pipeline = pipeline, .expert = expert, .data = data}});
        }
      }
    }
  }
  return all;
}

// A model on the ranks of a grid, with random weights that do not depend on the grid.
template <class Storage>
struct Shared {
  ProcessGrid grid;
  TrainedModel<Storage> trained;

  explicit Shared(const ProcessGrid& of_ranks)
      : grid(of_ranks),
        trained(config_of_decoding(), false, grid,
                PipelineCut{grid.degrees.pipeline, 1,
                            balanced_cut(config_of_decoding(), grid.degrees.pipeline, 1, 16.0)}
                    .chunks_of(grid.place.pipeline)) {
    initialise(trained.table, 3);
  }
};

constexpr int piece = 4, steps = 6;
const std::vector<std::vector<int>> prompts{{7, 31, 2, 40, 19, 5, 11, 0, 23, 8, 8}, {13, 4, 42}};

// The logits behind each piece and each step of both prompts, of which document 0 is read first and
// both then step together. `chosen` (steps) (prompts): the tokens that follow.
template <class Storage>
std::vector<std::vector<double>> logits_of(const Model<Storage>& model, const ProcessGrid& grid,
                                           const std::vector<std::vector<int>>& chosen) {
  Decoder<Storage> decoder(model, grid, {.documents = 2, .capacity = 24, .piece = piece});
  std::vector<std::vector<double>> logits;
  const auto keep = [&](const auto& behind) {
    logits.insert(logits.end(), behind.begin(), behind.end());
  };
  for (int n = 0; n < 2; ++n) {
    decoder.begin(n);
    for (std::size_t i = 0; i < prompts[n].size(); i += piece) {
      const auto end = std::min(prompts[n].size(), i + piece);
      keep(decoder.read(n, {prompts[n].begin() + i, prompts[n].begin() + end}));
    }
  }
  for (const auto& tokens : chosen) {
    keep(decoder.step({{0, {tokens[0]}}, {1, {tokens[1]}}}));
  }
  return logits;
}

double largest_difference(const std::vector<std::vector<double>>& a,
                          const std::vector<std::vector<double>>& b) {
  double most = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, test::difference(a[i], b[i]));
  }
  return most;
}

// A sum of n terms in another order is the sum of the same terms, each with an error of at most n
// eps: as if every weight had one of n eps. n = 64 is above every length of a sum here. What errors
// of one eps in all weights do is the largest of what they do in some runs of one rank, plus one
// eps of the number.
double bound_of_logits(const std::vector<std::vector<double>>& one,
                       const std::vector<std::vector<int>>& chosen) {
  double bound = 0.0;
  for (int member = 1; member <= 3; ++member) {
    Shared<double> other{ProcessGrid{}};
    move_by_one_rounding(other.trained.table, member);
    bound = std::max(bound,
                     largest_difference(one, logits_of(other.trained.model, other.grid, chosen)));
  }
  double size = 0.0;
  for (const auto& row : one) {
    size = std::max(size, test::largest(row));
  }
  return 64.0 * (bound + test::epsilon_of<double>() * size);
}

class Decoding : public testing::TestWithParam<Case> {};

TEST_P(Decoding, HasTheLogitsOfOneRank) {
  std::vector<std::vector<int>> chosen;
  for (int i = 0; i < steps; ++i) {
    chosen.push_back({(5 * i + 1) % 43, (11 * i + 2) % 43});
  }
  const Shared<double> alone{ProcessGrid{}};
  const auto one = logits_of(alone.trained.model, alone.grid, chosen);
  const double bound = bound_of_logits(one, chosen);
  const Shared<double> shared{ProcessGrid(GetParam().degrees, world())};
  const auto mine = logits_of(shared.trained.model, shared.grid, chosen);
  const auto& place = shared.grid.place;
  const bool speaks = place.tensor == 0 && place.pipeline + 1 == shared.grid.degrees.pipeline;
  ASSERT_EQ(mine.size(), speaks ? one.size() : 0u);
  EXPECT_LE(largest_difference(mine, one), bound);
  EXPECT_LT(bound, 1e-6);
}

// Prompts and lengths of which data ranks have different numbers, longer and shorter ones; the
// greedy tokens are those of one rank that writes behind one prompt at a time, also with drafts.
TEST_P(Decoding, WritesTheTokensOfOneRank) {
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 5; ++i) {
    std::vector<int> prompt;
    for (int t = 0; t <= 3 * i % 7; ++t) {
      prompt.push_back((11 * i + 5 * t) % 43);
    }
    requests.push_back({prompt, {.temperature = 0.0}, i == 3 ? 0 : 2 + 2 * i, {}, {}});
  }
  const auto text = bytes_as_tokens();
  const Shared<double> alone{ProcessGrid{}};
  std::vector<std::vector<int>> expected;
  for (const GenerationRequest& request : requests) {
    Generation<double> one(alone.trained.model, alone.grid,
                           {.documents = 1, .capacity = 32, .piece = piece}, *text);
    expected.push_back(one.write({request}).front().tokens);
    EXPECT_EQ(static_cast<int>(expected.back().size()), request.length);
  }
  const Shared<double> shared{ProcessGrid(GetParam().degrees, world())};
  for (const int drafts : {0, 2}) {
    Generation<double> all(shared.trained.model, shared.grid,
                           {.documents = 5, .capacity = 34, .piece = piece, .drafts = drafts},
                           *text);
    std::vector<std::vector<int>> written;
    all.write({requests.begin() + 1, requests.end()});  // the next take slots that these used
    for (const GenerationAnswer& answer : all.write(requests)) {
      written.push_back(answer.tokens);
    }
    EXPECT_EQ(written, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, Decoding, testing::ValuesIn(cases(world().ranks())), name_of);

}  // namespace
}  // namespace qnext
