// SPDX-License-Identifier: Apache-2.0
#include "app/sampling.hpp"

#include "core/random.hpp"
#include "core/require.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qnext {
namespace {

int most_probable(std::span<const double> logits) {
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Token numbers, most probable first, equals by number.
std::vector<int> ranking(std::span<const double> logits) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  return order;
}

// How many of the ranked tokens stay, given their probabilities among those that top-k left.
std::size_t nucleus(const std::vector<double>& ranked, double share) {
  const double total = std::accumulate(ranked.begin(), ranked.end(), 0.0);
  double sum = 0.0;
  for (std::size_t i = 0; i < ranked.size(); ++i) {
    sum += ranked[i];
    if (sum >= share * total) {
      return i + 1;
    }
  }
  return ranked.size();
}

}  // namespace

std::vector<double> probabilities(std::span<const double> logits, const Sampling& sampling) {
  require(!logits.empty(), "no logits to draw from");
  std::vector<double> result(logits.size(), 0.0);
  if (sampling.temperature == 0.0) {
    result[most_probable(logits)] = 1.0;
    return result;
  }
  const std::vector<int> order = ranking(logits);
  std::size_t kept = order.size();
  if (sampling.top_k > 0) {
    kept = std::min(kept, static_cast<std::size_t>(sampling.top_k));
  }
  std::vector<double> ranked(kept);
  for (std::size_t i = 0; i < kept; ++i) {
    ranked[i] = std::exp((logits[order[i]] - logits[order[0]]) / sampling.temperature);
  }
  ranked.resize(nucleus(ranked, sampling.top_p));
  const double total = std::accumulate(ranked.begin(), ranked.end(), 0.0);
  for (std::size_t i = 0; i < ranked.size(); ++i) {
    result[order[i]] = ranked[i] / total;
  }
  return result;
}

int sample(std::span<const double> logits, const Sampling& sampling, std::uint64_t count) {
  if (sampling.temperature == 0.0) {
    return most_probable(logits);
  }
  const std::vector<double> p = probabilities(logits, sampling);
  double rest = random_uniform(random_key(sampling.seed, "sampling"), count);
  int last = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0.0) {
      continue;
    }
    last = static_cast<int>(i);
    if (rest < p[i]) {
      break;
    }
    rest -= p[i];
  }
  return last;
}

}  // namespace qnext
