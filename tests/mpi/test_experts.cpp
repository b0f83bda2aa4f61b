// SPDX-License-Identifier: Apache-2.0
#include "tests/experts_layer.hpp"
#include "tests/mpi/world.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace qnext {
namespace {

using reference::ExpertsShape;
using test::world;

/// How the tokens choose.
enum class Choice { free, one_expert };

struct Case {
  const char* name;
  ExpertsShape n;  // of rank 0; `more_tokens` for each further rank
  int more_tokens = 0;
  int sequences = 1;
  Capacity capacity = {};
  double receive_factor = 2.0;
  Choice choice = Choice::free;

  ExpertsShape shape(int rank) const {
    ExpertsShape own = n;
    own.T += rank * more_tokens;
    return own;
  }
};

std::vector<Case> cases() {
  const ExpertsShape n{37, 24, 8, 3, 12, 16, true};
  const ExpertsShape one_choice{37, 24, 8, 1, 12, 16, false};
  return {{.name = "balanced", .n = n},
          {.name = "no shared expert, odd widths", .n = {21, 13, 8, 2, 7, 0, false}},
          {.name = "one token", .n = {1, 24, 8, 2, 12, 16, true}},
          {.name = "one choice of one token", .n = {1, 24, 8, 1, 12, 16, true}},
          {.name = "tight buffer", .n = n, .receive_factor = 1.0},
          {.name = "all to one expert",
           .n = one_choice,
           .receive_factor = 1.0,
           .choice = Choice::one_expert},
          {.name = "all to one expert, uneven rounds",
           .n = one_choice,
           .receive_factor = 1.3,
           .choice = Choice::one_expert},
          {.name = "unequal ranks", .n = {3, 24, 8, 3, 12, 16, true}, .more_tokens = 20},
          {.name = "capacity by position",
           .n = {36, 24, 8, 3, 12, 16, true},
           .sequences = 2,
           .capacity = {Capacity::Rule::position, 0.6}},
          {.name = "capacity by probability",
           .n = {36, 24, 8, 3, 12, 16, true},
           .sequences = 2,
           .capacity = {Capacity::Rule::probability, 0.6}}};
}

// The weights of a layer that all ranks make alike.
reference::ExpertsWeights weights_of(const Case& c) {
  auto w = test::expert_weights(c.n, 5);
  if (c.choice == Choice::one_expert) {
    for (int e = 0; e < c.n.E; ++e) {  // the first number of every token is 1
      w.router[e * c.n.D] = e == 5 ? 40.0 : 0.0;
    }
  }
  return w;
}

template <class Storage>
std::vector<double> tokens_of(const Case& c, const ExpertsShape& n) {
  auto x = test::uniform(n.T * n.D, -1.0, 1.0, 100 + world().rank());
  for (int t = 0; t < n.T && c.choice == Choice::one_expert; ++t) {
    x[t * n.D] = 1.0;
  }
  return test::rounded<Storage>(x);
}

// The sum of what the ranks of a group have.
std::vector<double> sum_over(const Communicator& group, const std::vector<double>& mine) {
  const auto all = group.all_gather(mine);
  std::vector<double> sum(mine.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    sum[i % mine.size()] += all[i];
  }
  return sum;
}

/// The sums of |terms| of which the gradients of the experts' weights are made, and how many terms
/// each expert has. After backward of one rank that holds all experts.
template <class Storage>
struct Terms {
  std::vector<double> gate_up, down;  // (E, 2F, D), (E, D, F)
  std::vector<double> rows;           // (E)

  Terms(const test::ExpertsLayer<Storage>& layer, const std::vector<double>& x,
        const std::vector<double>& dy) {
    const ExpertsShape& n = layer.n;
    gate_up.resize(n.E * 2 * n.F * n.D);
    down.resize(n.E * n.D * n.F);
    rows.resize(n.E);
    const auto place = test::to_host(layer.saved.rows.place), selected = layer.selected();
    const auto hidden = test::to_host(layer.work.hidden);
    const auto dgate_up = test::to_host(layer.work.dgate_up);
    for (int c = 0; c < n.T * n.K; ++c) {
      const int r = static_cast<int>(place[c]), e = static_cast<int>(selected[c]), t = c / n.K;
      if (r < 0) {
        continue;
      }
      rows[e] += 1.0;
      for (int d = 0; d < n.D; ++d) {
        for (int f = 0; f < 2 * n.F; ++f) {
          gate_up[(e * 2 * n.F + f) * n.D + d] +=
              std::abs(dgate_up[r * 2 * n.F + f] * x[t * n.D + d]);
        }
        for (int f = 0; f < n.F; ++f) {
          down[(e * n.D + d) * n.F + f] += std::abs(dy[t * n.D + d] * hidden[r * n.F + f]);
        }
      }
    }
  }
};

// One rank that holds all experts and takes the tokens of this rank is the judge. Both sides add
// the same terms a_r c_r, whose factors are equal to the last bit; n of them, in whatever order and
// in whatever parts, give a sum whose error is at most n u sum |a_r c_r| with u = epsilon / 2, and
// the product of a term and the addition of a rank's sum make one rounding more each.
template <class Storage>
void expect_gradients(const Case& c, const ProcessGrid& grid,
                      const test::ExpertsLayer<Storage>& layer,
                      const test::ExpertsLayer<Storage>& alone, const Terms<Storage>& terms) {
  const auto rows = sum_over(grid.expert, terms.rows);
  const auto bounded = [&](const std::string& name, const std::vector<double>& own_terms) {
    const auto expected = sum_over(grid.expert, alone.gradient(name));
    const auto sizes = sum_over(grid.expert, own_terms);
    const auto actual = layer.gradient(name);
    const Parameter& row = *layer.table.find(name);
    ASSERT_EQ(row.elements() * grid.degrees.expert, static_cast<std::int64_t>(expected.size()));
    const std::size_t first = test::ExpertsLayer<Storage>::first_element(row);
    const std::size_t matrix = expected.size() / c.n.E;
    for (std::size_t i = 0; i < actual.size(); ++i) {
      const double n = rows[(first + i) / matrix] + grid.degrees.expert + 1;
      const double bound = n * test::epsilon_of<Accum<Storage>>() * sizes[first + i];
      ASSERT_NEAR(actual[i], expected[first + i], bound) << name << " " << i;
    }
  };
  bounded("mlp.experts.gate_up_proj", terms.gate_up);
  bounded("mlp.experts.down_proj", terms.down);
  for (const Parameter& row : layer.table.rows()) {
    if (row.reduce_over != ReduceOver::data_beside_experts) {
      EXPECT_EQ(layer.gradient(row.name), alone.gradient(row.name)) << row.name;
    }
  }
}

template <class Storage>
void expect_ranks_to_be_one(const Case& c, int degree) {
  SCOPED_TRACE(std::string(c.name) + ", expert degree " + std::to_string(degree));
  using Real = Accum<Storage>;
  const ProcessGrid grid(Degrees{.expert = degree, .data = world().ranks()}, world());
  const ExpertsShape n = c.shape(world().rank());
  test::ExpertsLayer<Storage> layer(n, c.sequences, c.capacity, grid, c.receive_factor);
  test::ExpertsLayer<Storage> alone(n, c.sequences, c.capacity);
  auto w = weights_of(c);
  layer.set(w);
  alone.set(w);
  const auto x = tokens_of<Storage>(c, n);
  const auto dy = test::rounded<Storage>(test::uniform(n.T * n.D, -1.0, 1.0, 200 + world().rank()));
  // Forward twice: recomputation exchanges once more.
  layer.forward(x);
  EXPECT_EQ(layer.forward(x), alone.forward(x));
  EXPECT_EQ(test::to_host(layer.saved.statistics.count),
            test::to_host(alone.saved.statistics.count));
  EXPECT_EQ(test::to_host(layer.saved.statistics.probability),
            test::to_host(alone.saved.statistics.probability));
  const auto constant = test::to_device<Real>(test::uniform(n.E, 0.0, 1.0, 7), 1, n.E);
  const BalanceGradient<Real> balance{constant, Real(0.3), Real(0.1)};
  EXPECT_EQ(layer.backward(dy, &balance), alone.backward(dy, &balance));
  EXPECT_EQ(test::to_host(layer.work.dweights), test::to_host(alone.work.dweights));
  expect_gradients(c, grid, layer, alone, Terms<Storage>(alone, x, dy));
}

template <class Storage>
class ExpertRanks : public testing::Test {};
using Types = testing::Types<double, float, bf16>;
TYPED_TEST_SUITE(ExpertRanks, Types);

// Every degree that the ranks allow: all of them, and groups beside each other.
TYPED_TEST(ExpertRanks, AreOneRank) {
  for (const Case& c : cases()) {
    for (int degree = 2; degree <= world().ranks(); degree *= 2) {
      expect_ranks_to_be_one<TypeParam>(c, degree);
    }
  }
}

// The rows of one expert are too many for the rank that owns it: it takes T K receive_factor of
// them in a round, and everybody sends it T K.
TEST(ExpertRounds, AreAsManyAsTheRowsWant) {
  const int N = world().ranks();
  const ProcessGrid grid(Degrees{.expert = N, .data = N}, world());
  for (const auto& [factor, rounds] : {std::pair{1.0, N}, {2.0, (N + 1) / 2}, {100.0, 1}}) {
    Case c{.name = "", .n = {20, 24, 8, 1, 12, 0, false}, .choice = Choice::one_expert};
    test::ExpertsLayer<float> layer(c.n, 1, {}, grid, factor);
    auto w = weights_of(c);
    layer.set(w);
    layer.forward(tokens_of<float>(c, c.n));
    EXPECT_EQ(layer.saved.over_ranks.exchange.rounds(), rounds) << factor;
  }
  Case balanced{.name = "", .n = {400, 24, 8, 2, 12, 0, false}};
  test::ExpertsLayer<float> layer(balanced.n, 1, {}, grid);
  auto w = weights_of(balanced);
  layer.set(w);
  layer.forward(tokens_of<float>(balanced, balanced.n));
  EXPECT_EQ(layer.saved.over_ranks.exchange.rounds(), 1);
}

// In double products of more than a few rows have the same rows whatever their number. Then one
// rank that takes the tokens of all, rank behind rank, adds the same terms in the same order, as
// long as one round is enough.
TEST(ExpertRanks, AddTheTermsInTheOrderOfOneRank) {
  const int N = world().ranks(), T = 70;
  const ProcessGrid grid(Degrees{.expert = N, .data = N}, world());
  const Case c{.name = "", .n = {T, 24, 8, 3, 12, 16, true}, .receive_factor = 1e3};
  ExpertsShape whole = c.n;
  whole.T = N * T;
  test::ExpertsLayer<double> layer(c.n, 1, {}, grid, c.receive_factor), alone(whole);
  auto w = weights_of(c);
  layer.set(w);
  alone.set(w);
  const auto x = tokens_of<double>(c, c.n);
  const auto dy = test::uniform(T * c.n.D, -1.0, 1.0, 200 + world().rank());
  layer.forward(x);
  layer.backward(dy);
  ASSERT_EQ(layer.saved.over_ranks.exchange.rounds(), 1);
  alone.forward(world().all_gather(x));
  alone.backward(world().all_gather(dy));
  for (const char* name : {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}) {
    EXPECT_EQ(world().all_gather(layer.gradient(name)), alone.gradient(name)) << name;
  }
}

TEST(ExpertRanks, RefuseExpertsThatCannotBeShared) {
  const int N = world().ranks();
  const ProcessGrid grid(Degrees{.expert = N, .data = N}, world());
  EXPECT_THROW(test::ExpertsLayer<float>({4, 24, 2 * N + 1, 2, 12, 0, true}, 1, {}, grid), Error);
  EXPECT_THROW(test::ExpertsLayer<float>({4, 24, 2 * N, 2, 12, 0, true}, 1, {}, grid, 0.5), Error);
}

}  // namespace
}  // namespace qnext
