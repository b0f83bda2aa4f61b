// SPDX-License-Identifier: Apache-2.0
#include "app/pipeline_cut.hpp"

#include "app/flops.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <compare>
#include <limits>
#include <numeric>

namespace qnext {
namespace {

// Layers repeat after so many, or after all of them.
int cycle_of(const ModelConfig& model) {
  const int layers = model.layers();
  for (int cycle = 1; cycle < layers; ++cycle) {
    bool repeats = true;
    for (int i = cycle; i < layers; ++i) {
      repeats = repeats && model.mixers[i] == model.mixers[i - cycle] &&
                model.mlps[i] == model.mlps[i - cycle];
    }
    if (repeats) {
      return cycle;
    }
  }
  return layers;
}

struct Costs {
  std::vector<std::int64_t> before;  // (layers + 1)  of all layers in front of one
  std::int64_t behind = 0;           // of what stands behind the last layer

  std::int64_t of(int begin, int end, bool last) const {
    return before[end] - before[begin] + (last ? behind : 0);
  }
};

Costs costs_of(const ModelConfig& model, double mean_length) {
  Costs costs{{0}, static_cast<std::int64_t>(behind_layers_multiply_adds(model, mean_length))};
  for (int i = 0; i < model.layers(); ++i) {
    costs.before.push_back(costs.before.back() +
                           static_cast<std::int64_t>(layer_multiply_adds(model, i, mean_length)));
  }
  return costs;
}

// The cut at multiples of `step` layers whose pieces cost at most `limit` and whose sum of squares
// is least, or none. best[p][i]: of the first p pieces, which end in front of layer i.
std::vector<int> most_even_cut(const Costs& costs, int pieces, int step, double limit) {
  const int layers = static_cast<int>(costs.before.size()) - 1;
  constexpr double never = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> best(pieces + 1, std::vector<double>(layers + 1, never));
  std::vector<std::vector<int>> begin(pieces + 1, std::vector<int>(layers + 1, 0));
  best[0][0] = 0.0;
  for (int p = 1; p <= pieces; ++p) {
    const bool last = p == pieces;
    for (int end = last ? layers : step; end <= layers; end += last ? 1 : step) {
      for (int i = 0; i <= (last ? end : end - 1); i += step) {
        const auto cost = static_cast<double>(costs.of(i, end, last));
        if (cost <= limit && best[p - 1][i] + cost * cost < best[p][end]) {
          best[p][end] = best[p - 1][i] + cost * cost;
          begin[p][end] = i;
        }
      }
    }
  }
  if (best[pieces][layers] == never) {
    return {};
  }
  std::vector<int> sizes(pieces);
  for (int p = pieces, end = layers; p > 0; --p) {
    sizes[p - 1] = end - begin[p][end];
    end = begin[p][end];
  }
  return sizes;
}

// How good a cut is: what bounds the rate of the pipeline comes first. Small is good.
struct Score {
  double largest_stage, largest_piece, squares;

  auto operator<=>(const Score&) const = default;
};

Score score_of(const Costs& costs, const std::vector<int>& layers, int stages) {
  std::vector<double> of_stage(stages, 0.0);
  Score score{};
  int begin = 0;
  for (std::size_t piece = 0; piece < layers.size(); ++piece) {
    const int end = begin + layers[piece];
    const auto cost = static_cast<double>(costs.of(begin, end, piece + 1 == layers.size()));
    double& stage = of_stage[piece % stages];
    stage += cost;
    score.largest_stage = std::max(score.largest_stage, stage);
    score.largest_piece = std::max(score.largest_piece, cost);
    begin = end;
  }
  for (const double stage : of_stage) {
    score.squares += stage * stage;
  }
  return score;
}

// Moves layers from piece to piece as long as that makes the cut better. The stages of a pipeline
// with several chunks can be even where pieces cannot: the one with the head has less before it.
std::vector<int> improved(const Costs& costs, std::vector<int> layers, int stages, int step) {
  const std::size_t last = layers.size() - 1;
  Score best = score_of(costs, layers, stages);
  for (bool better = true; better;) {
    better = false;
    std::vector<int> next = layers;
    for (std::size_t from = 0; from <= last; ++from) {
      for (std::size_t to = 0; to <= last; ++to) {
        std::vector<int> moved = layers;
        moved[from] -= step;
        moved[to] += step;
        const bool allowed = moved[from] > 0 || (from == last && moved[from] == 0);
        if (from != to && allowed && score_of(costs, moved, stages) < best) {
          best = score_of(costs, moved, stages);
          next = moved;
          better = true;
        }
      }
    }
    layers = next;
  }
  return layers;
}

// With the least limit that a cut can keep: one of the costs of a piece.
std::vector<int> best_cut(const Costs& costs, int stages, int pieces, int step) {
  const int layers = static_cast<int>(costs.before.size()) - 1;
  std::vector<std::int64_t> limits;
  for (int i = 0; i <= layers; i += step) {
    for (int end = i + step; end <= layers; end += step) {
      limits.push_back(costs.of(i, end, false));
    }
    limits.push_back(costs.of(i, layers, true));
  }
  std::sort(limits.begin(), limits.end());
  const auto enough = std::partition_point(limits.begin(), limits.end(), [&](std::int64_t limit) {
    return most_even_cut(costs, pieces, step, static_cast<double>(limit)).empty();
  });
  return enough == limits.end()
             ? std::vector<int>{}
             : improved(costs, most_even_cut(costs, pieces, step, static_cast<double>(*enough)),
                        stages, step);
}

}  // namespace

std::vector<Chunk> PipelineCut::chunks_of(int stage) const {
  const int pieces = static_cast<int>(layers.size());
  std::vector<Chunk> chunks;
  for (int piece = stage; piece < pieces; piece += stages) {
    const int begin = std::accumulate(layers.begin(), layers.begin() + piece, 0);
    chunks.push_back({piece, pieces, begin, begin + layers[piece]});
  }
  return chunks;
}

std::vector<std::int64_t> piece_costs(const ModelConfig& model, const std::vector<int>& layers,
                                      double mean_length) {
  const Costs costs = costs_of(model, mean_length);
  std::vector<std::int64_t> pieces;
  int begin = 0;
  for (const int count : layers) {
    pieces.push_back(costs.of(begin, begin + count, pieces.size() + 1 == layers.size()));
    begin += count;
  }
  return pieces;
}

std::vector<int> balanced_cut(const ModelConfig& model, int stages, int chunks,
                              double mean_length) {
  const Costs costs = costs_of(model, mean_length);
  const int pieces = stages * chunks, cycle = cycle_of(model);
  const std::vector<int> any = best_cut(costs, stages, pieces, 1);
  const std::vector<int> whole =
      model.layers() % cycle == 0 ? best_cut(costs, stages, pieces, cycle) : std::vector<int>{};
  if (whole.empty()) {
    return any;
  }
  constexpr double more = 1.02;
  const Score of_any = score_of(costs, any, stages), of_whole = score_of(costs, whole, stages);
  return of_whole.largest_stage <= more * of_any.largest_stage &&
                 of_whole.squares <= more * of_any.squares
             ? whole
             : any;
}

PipelineCut read_pipeline_cut(const Section& parallel, const ModelConfig& model, int stages,
                              int microbatches, double mean_length) {
  PipelineCut cut;
  cut.stages = stages;
  cut.chunks = parallel.get("chunks", 1);
  const int most = stages == 1 ? 1 : (model.layers() + 1) / stages;
  parallel.check(cut.chunks >= 1 && cut.chunks <= most, "chunks",
                 stages == 1
                     ? "must be 1 without a pipeline"
                     : fmt::format("must be from 1 to {}: every piece but the last has a layer, "
                                   "and there are {} for {} stages",
                                   most, model.layers(), stages));
  parallel.check(cut.chunks == 1 || microbatches >= stages, "chunks",
                 fmt::format("must be 1 where a data rank has {} microbatches of a step: several "
                             "chunks want at least as many as there are stages, {}",
                             microbatches, stages));
  const int pieces = stages * cut.chunks;
  const std::vector<int> balanced = balanced_cut(model, stages, cut.chunks, mean_length);
  cut.layers = parallel.get("stage_layers", std::vector<int>{});
  if (cut.layers.empty()) {
    cut.layers = balanced;
    return cut;
  }
  const std::string instead =
      fmt::format("; these balance the stages: [{}]", fmt::join(balanced, ", "));
  parallel.check(static_cast<int>(cut.layers.size()) == pieces, "stage_layers",
                 fmt::format("has {} entries for {} stages of {} chunks{}", cut.layers.size(),
                             stages, cut.chunks, instead));
  parallel.check(cut.layers.back() >= 0 && std::all_of(cut.layers.begin(), cut.layers.end() - 1,
                                                       [](int count) { return count > 0; }),
                 "stage_layers", "each is positive, the last one may be 0" + instead);
  const int sum = std::accumulate(cut.layers.begin(), cut.layers.end(), 0);
  parallel.check(sum == model.layers(), "stage_layers",
                 fmt::format("adds up to {} of {} layers{}", sum, model.layers(), instead));
  return cut;
}

}  // namespace qnext
