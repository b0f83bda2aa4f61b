// SPDX-License-Identifier: Apache-2.0
#include "core/context_share.hpp"
#include "core/require.hpp"
#include "layers/gated_attention.hpp"
#include "layers/gated_delta_net.hpp"
#include "tests/mpi/world.hpp"
#include "tests/support.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::world;
using Numbers = std::vector<double>;

constexpr int D = 12;
constexpr int chunk = 16;

GatedDeltaNetConfig delta_net_config() {
  return {.model_width = D,
          .key_heads = 2,
          .value_heads = 4,
          .key_width = 8,
          .value_width = 6,
          .conv_taps = 4,
          .chunk = chunk,
          .norm_epsilon = 1e-5,
          .init_deviation = 0.5};
}

GatedAttentionConfig attention_config() {
  return {.model_width = D,
          .heads = 6,
          .key_value_heads = 2,
          .head_width = 8,
          .rotary_width = 4,
          .rotary_base = 1e4,
          .init_deviation = 0.5};
}

// Lengths of the documents in units of `ranks` tokens and a remainder, so that a case fits any
// number of ranks.
struct Case {
  std::string name;
  int piece;  // tokens of a rank in each sequence
  int sequences;
  std::vector<int> borders;  // in one sequence, where documents end before its end; -n: n tokens
                             // before the first border between ranks, n > 0: behind it

  // Documents of all sequences over so many ranks.
  std::vector<int> lengths(int ranks) const {
    std::vector<int> all;
    for (int s = 0; s < sequences; ++s) {
      int begin = 0;
      for (const int border : borders) {
        all.push_back(piece + border - begin);
        begin = piece + border;
      }
      all.push_back(piece * ranks - begin);
    }
    return all;
  }
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

const std::vector<Case> cases = {
    {"OneDocument", 37, 1, {}},
    {"TwoSequencesOfOneDocument", 20, 2, {}},
    {"EndsOneTokenBeforeTheBorder", 21, 1, {-1}},
    {"EndsAtTheBorder", 21, 2, {0}},
    {"EndsOneTokenBehindTheBorder", 21, 1, {1}},
    {"ManyAroundTheBorder", 19, 2, {-12, -11, -2, 2, 3, 5}},
    {"PiecesOfAsManyTokensAsATail", 3, 2, {}},
    {"NoneCrosses", 16, 1, {-9, 0}},
};

/// What a pass over all tokens gives, put together from all ranks.
struct Result {
  Numbers y, dx;
  std::vector<Numbers> gradients;
};

std::vector<int> all_tokens(int count) {
  std::vector<int> tokens(count);
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

Numbers rows(const Numbers& all, const std::vector<int>& tokens) {
  Numbers mine;
  for (const int t : tokens) {
    mine.insert(mine.end(), all.begin() + t * D, all.begin() + (t + 1) * D);
  }
  return mine;
}

// Forward and backward of a layer on the context ranks of a grid.
template <template <class> class Layer, class Storage, class Config>
class Pass {
 public:
  Pass(const Config& config, const ProcessGrid& grid)
      : grid_(grid), layer_(config, grid, table_, "") {
    table_.lay_out();
    initialise(table_, 7);
  }

  Result run(const std::vector<int>& lengths, int sequences, const Numbers& x, const Numbers& dy) {
    const int T = std::accumulate(lengths.begin(), lengths.end(), 0);
    const int ranks = grid_.degrees.context;
    ContextShare share;
    if (ranks == 1) {
      share.documents = make_documents(lengths, sequences);
      share.tokens = all_tokens(T);
    } else {
      share = ContextShare::make(lengths, sequences, ranks, grid_.place.context);
    }
    const int mine = T / ranks;
    const MicrobatchShape shape{mine, share.documents.count, sequences};
    Arena plan;
    layer_.reserve_saved(plan, shape);
    layer_.reserve_work(plan, shape);
    Arena arena(plan.peak());
    {
      const Arena::Scope scope(arena);
      test::poison(arena.template reserve<float, 1>("everything", plan.peak() / 4));
    }
    auto saved = layer_.reserve_saved(arena, shape);
    const auto work = layer_.reserve_work(arena, shape);
    const auto y = test::nan_tensor<Storage>(mine, D), dx = test::nan_tensor<Storage>(mine, D);
    table_.zero_gradients(Exec{});
    const auto input = test::to_device<Storage>(rows(x, share.tokens), mine, D);
    layer_.forward(Exec{}, share.documents, input, nullptr, y, nullptr, saved, work);
    layer_.backward(Exec{}, share.documents,
                    test::to_device<Storage>(rows(dy, share.tokens), mine, D), nullptr, saved, dx,
                    nullptr, work);
    Result result{gather(lengths, sequences, test::to_host(y)),
                  gather(lengths, sequences, test::to_host(dx)),
                  {}};
    for (const Parameter& row : table_.rows()) {
      result.gradients.push_back(
          sum(test::to_host(table_.template gradients<Accum<Storage>>(row))));
    }
    return result;
  }

  const ParameterTable& table() const { return table_; }

 private:
  Numbers gather(const std::vector<int>& lengths, int sequences, const Numbers& mine) const {
    if (grid_.degrees.context == 1) {
      return mine;
    }
    const auto all = grid_.context.all_gather(mine);
    Numbers whole(all.size());
    for (int rank = 0; rank < grid_.degrees.context; ++rank) {
      const auto tokens =
          ContextShare::make(lengths, sequences, grid_.degrees.context, rank).tokens;
      for (std::size_t i = 0; i < mine.size(); ++i) {
        whole[tokens[i / D] * D + i % D] = all[rank * mine.size() + i];
      }
    }
    return whole;
  }

  Numbers sum(const Numbers& mine) const {
    Numbers total(mine.size(), 0.0);
    const auto all = grid_.context.all_gather(mine);
    for (std::size_t i = 0; i < all.size(); ++i) {
      total[i % mine.size()] += all[i];
    }
    return total;
  }

  ProcessGrid grid_;
  ParameterTable table_;
  Layer<Storage> layer_;
};

double largest(const Numbers& values) {
  double most = 0.0;
  for (const double value : values) {
    most = std::max(most, std::abs(value));
  }
  return most;
}

void expect_near(const Numbers& actual, const Numbers& expected, double relative,
                 const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  const double bound = relative * largest(expected);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], bound) << what << ", element " << i;
  }
}

ProcessGrid context_grid() {
  return ProcessGrid(Degrees{.context = world().ranks()}, world());
}

// Sums of a layer: over at most D, or heads times width, terms on either side of a mixer whose rows
// remember at most T tokens, ten of them behind each other in forward and backward; in another
// order each is off by an epsilon a term, relative to the largest number.
template <class Storage>
double bound_of(int T) {
  constexpr int widest = 6 * 8;  // heads times width
  return 10.0 * (T + widest) * test::epsilon_of<Storage>();
}

template <template <class> class Layer, class Storage, class Config>
void expect_equal_to_one_rank(const Case& c, const Config& config) {
  const auto lengths = c.lengths(world().ranks());
  const int T = std::accumulate(lengths.begin(), lengths.end(), 0);
  const auto x = test::rounded<Storage>(test::uniform(T * D, -1, 1, 3));
  const auto dy = test::rounded<Storage>(test::uniform(T * D, -1, 1, 4));
  Pass<Layer, Storage, Config> alone(config, ProcessGrid{}), shared(config, context_grid());
  const Result one = alone.run(lengths, c.sequences, x, dy);
  const Result mine = shared.run(lengths, c.sequences, x, dy);
  const double bound = bound_of<Storage>(T);
  expect_near(mine.y, one.y, bound, "y");
  expect_near(mine.dx, one.dx, bound, "dx");
  for (std::size_t i = 0; i < one.gradients.size(); ++i) {
    expect_near(mine.gradients[i], one.gradients[i], bound, alone.table().rows()[i].name);
  }
  const Result again = shared.run(lengths, c.sequences, x, dy);
  EXPECT_EQ(again.y, mine.y) << "the same bits again";
  EXPECT_EQ(again.dx, mine.dx);
  EXPECT_EQ(again.gradients, mine.gradients);
}

class ContextLayers : public testing::TestWithParam<Case> {};

TEST_P(ContextLayers, DeltaNetEqualsOneRank) {
  expect_equal_to_one_rank<GatedDeltaNet, double>(GetParam(), delta_net_config());
  expect_equal_to_one_rank<GatedDeltaNet, float>(GetParam(), delta_net_config());
}
TEST_P(ContextLayers, AttentionEqualsOneRank) {
  expect_equal_to_one_rank<GatedAttention, double>(GetParam(), attention_config());
  expect_equal_to_one_rank<GatedAttention, float>(GetParam(), attention_config());
}

// A document's numbers do not know what stands in the others: to the last bit.
template <template <class> class Layer, class Config>
void expect_no_leak(const Case& c, const Config& config) {
  const auto lengths = c.lengths(world().ranks());
  const int T = std::accumulate(lengths.begin(), lengths.end(), 0);
  const auto x = test::uniform(T * D, -1, 1, 3), dy = test::uniform(T * D, -1, 1, 4);
  Pass<Layer, double, Config> layer(config, context_grid());
  const Result before = layer.run(lengths, c.sequences, x, dy);
  int begin = 0;
  for (std::size_t n = 0; n < lengths.size(); begin += lengths[n], ++n) {
    auto other_x = x, other_dy = dy;
    for (int i = begin * D; i < (begin + lengths[n]) * D; ++i) {
      other_x[i] = -3.0 * x[i] + 0.5;
      other_dy[i] = 2.0 - dy[i];
    }
    const Result after = layer.run(lengths, c.sequences, other_x, other_dy);
    int changed = 0;
    for (int i = 0; i < T * D; ++i) {
      const bool inside = i >= begin * D && i < (begin + lengths[n]) * D;
      changed += inside && after.y[i] != before.y[i] && after.dx[i] != before.dx[i];
      if (!inside) {
        ASSERT_EQ(after.y[i], before.y[i]) << "document " << n << ", token " << i / D;
        ASSERT_EQ(after.dx[i], before.dx[i]) << "document " << n << ", token " << i / D;
      }
    }
    EXPECT_GT(changed, lengths[n] * D / 2);
  }
}

TEST_P(ContextLayers, DeltaNetKeepsDocumentsApart) {
  expect_no_leak<GatedDeltaNet>(GetParam(), delta_net_config());
}
TEST_P(ContextLayers, AttentionKeepsDocumentsApart) {
  expect_no_leak<GatedAttention>(GetParam(), attention_config());
}

INSTANTIATE_TEST_SUITE_P(Cases, ContextLayers, testing::ValuesIn(cases),
                         [](const auto& info) { return info.param.name; });

// In bf16 roundings of 2^-9 in some ten places on the way differ: the results point the same way
// within ten times that.
template <template <class> class Layer, class Config>
void expect_same_direction(const Config& config) {
  const Case& c = cases[5];
  const auto lengths = c.lengths(world().ranks());
  const int T = std::accumulate(lengths.begin(), lengths.end(), 0);
  const auto x = test::rounded<bf16>(test::uniform(T * D, -1, 1, 3));
  const auto dy = test::rounded<bf16>(test::uniform(T * D, -1, 1, 4));
  Pass<Layer, bf16, Config> alone(config, ProcessGrid{}), shared(config, context_grid());
  const Result one = alone.run(lengths, c.sequences, x, dy);
  const Result mine = shared.run(lengths, c.sequences, x, dy);
  const auto expect_angle = [](const Numbers& a, const Numbers& b, const std::string& what) {
    double product = 0.0, of_a = 0.0, of_b = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      product += a[i] * b[i];
      of_a += a[i] * a[i];
      of_b += b[i] * b[i];
    }
    EXPECT_GT(product / std::sqrt(of_a * of_b), std::cos(10 * 0x1.0p-9)) << what;
    EXPECT_NEAR(of_a / of_b, 1.0, 2 * 10 * 0x1.0p-9) << what;
  };
  expect_angle(mine.y, one.y, "y");
  expect_angle(mine.dx, one.dx, "dx");
  for (std::size_t i = 0; i < one.gradients.size(); ++i) {
    expect_angle(mine.gradients[i], one.gradients[i], alone.table().rows()[i].name);
  }
}

TEST(ContextLayersInBf16, PointTheSameWay) {
  expect_same_direction<GatedDeltaNet>(delta_net_config());
  expect_same_direction<GatedAttention>(attention_config());
}

template <class Call>
void expect_refused(const Call& call, const std::string& words) {
  try {
    call();
    FAIL() << "accepted, wanted: " << words;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

// States go from rank to rank, not through the caller.
TEST(ContextLayersRefuse, StatesOfTheCaller) {
  const ProcessGrid grid = context_grid();
  const auto share = ContextShare::make({4 * world().ranks()}, 1, world().ranks(), world().rank());
  const MicrobatchShape shape{4, 1, 1};
  const auto x = test::to_device<float>(test::uniform(4 * D, -1, 1, 3), 4, D);
  const auto y = test::nan_tensor<float>(4, D);
  ParameterTable table;
  const GatedDeltaNet<float> delta_net(delta_net_config(), grid, table, "a");
  const GatedAttention<float> attention(attention_config(), grid, table, "b");
  table.lay_out();
  GatedDeltaNet<float>::Saved of_delta_net;
  GatedDeltaNet<float>::State memory;
  GatedDeltaNet<float>::Work work;
  expect_refused(
      [&] {
        delta_net.forward(Exec{}, share.documents, x, &memory, y, &memory, of_delta_net, work);
      },
      "delta net: context ranks pass states to each other and take none");
  expect_refused(
      [&] {
        delta_net.backward(Exec{}, share.documents, x, &memory, of_delta_net, y, &memory, work);
      },
      "delta net: context ranks pass gradients of states to each other and take none");
  GatedAttention<float>::State keys;
  GatedAttention<float>::Saved saved;
  expect_refused([&] { attention.forward(Exec{}, share.documents, x, &keys, y, &keys, saved, {}); },
                 "attention: context ranks pass keys to each other and take none");

  Arena plan;
  attention.reserve_saved(plan, shape);
  attention.reserve_work(plan, shape);
  Arena arena(plan.peak());
  saved = attention.reserve_saved(arena, shape);
  const auto room = attention.reserve_work(arena, shape);
  expect_refused(
      [&] { attention.forward(Exec{}, make_documents({4}), x, nullptr, y, nullptr, saved, room); },
      "attention: context ranks want documents that are shared out");
}

// Bytes of docs/parallel.md that a rank sends in one pass of a layer, of one document.
TEST(ContextTraffic, IsWhatThePageSays) {
  const int C = world().ranks(), r = world().rank(), P = 16;
  const ProcessGrid grid = context_grid();
  const auto x = test::uniform(C * P * D, -1, 1, 3);
  const auto bytes_so_far = [&] {
    std::int64_t bytes = 0;
    for (const char* const kind : {"exchange", "send"}) {
      const auto found = grid.context.traffic().kinds.find(kind);
      bytes += found == grid.context.traffic().kinds.end() ? 0 : found->second.bytes;
    }
    return bytes;
  };
  const auto bytes_of = [&](auto& pass) {
    const std::int64_t before = bytes_so_far();
    pass.run({C * P}, 1, x, x);
    return bytes_so_far() - before;
  };
  // Behind each pass the test gathers results from all ranks, which counts as exchange.
  const auto gathered = [&](const ParameterTable& table) {
    std::int64_t numbers = 2 * P * D;
    for (const Parameter& row : table.rows()) {
      numbers += row.elements();
    }
    return numbers * 8 * (C - 1);
  };
  {
    const auto n = delta_net_config();
    Pass<GatedDeltaNet, double, GatedDeltaNetConfig> pass(n, grid);
    const std::int64_t channels = 2 * n.key_heads * n.key_width + n.value_heads * n.value_width;
    const std::int64_t state =
        ((n.conv_taps - 1) * channels + n.value_heads * n.key_width * n.value_width) * 8;
    EXPECT_EQ(bytes_of(pass) - gathered(pass.table()), ((r + 1 < C) + (r > 0)) * state);
  }
  {
    const auto n = attention_config();
    Pass<GatedAttention, double, GatedAttentionConfig> pass(n, grid);
    const std::int64_t keys = 2 * P * n.key_value_heads * n.head_width,
                       queries = P * n.heads * n.head_width;
    const std::int64_t factors = P * n.heads;
    const std::int64_t ring = (C - 1) * keys + (C - 1) * keys + C * keys;
    const std::int64_t halves = 2 * r + 1 == C
                                    ? 0
                                    : (keys + queries + queries + factors +  // forward
                                       keys + 2 * queries + 2 * factors + keys + queries) /
                                          2;
    EXPECT_EQ(bytes_of(pass) - gathered(pass.table()), (ring + halves) * 8);
  }
}

}  // namespace
}  // namespace qnext
