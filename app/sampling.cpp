// SPDX-License-Identifier: Apache-2.0
#include "app/sampling.hpp"

#include "core/random.hpp"
#include "core/require.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

namespace qnext {
namespace {

// A model whose numbers went bad has no next token.
void check_finite(std::span<const double> logits) {
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) {
      throw BadNumberError(
          fmt::format("the logit of token {} is {}: no next token can be chosen", i, logits[i]));
    }
  }
}

int most_probable(std::span<const double> logits) {
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Tokens that are still in, with their probabilities relative to the largest of all.
class Candidates {
 public:
  Candidates(std::span<const double> logits, const Sampling& sampling) : logits_(logits) {
    tokens_.resize(logits.size());
    std::iota(tokens_.begin(), tokens_.end(), 0);
    keep_most_probable(sampling.top_k);
    const double largest = logits[most_probable(logits)];
    for (const int token : tokens_) {
      shares_.push_back(std::exp((logits[token] - largest) / sampling.temperature));
    }
    keep_nucleus(sampling.top_p);
    keep_above(sampling.min_p);
  }

  std::vector<double> normalised() const {
    const double total = std::accumulate(shares_.begin(), shares_.end(), 0.0);
    std::vector<double> result(logits_.size(), 0.0);
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      result[tokens_[i]] = shares_[i] / total;
    }
    return result;
  }

 private:
  bool precedes(int a, int b) const {
    return logits_[a] > logits_[b] || (logits_[a] == logits_[b] && a < b);
  }

  void keep_most_probable(int count) {
    if (count == 0 || count >= static_cast<int>(tokens_.size())) {
      return;
    }
    std::nth_element(tokens_.begin(), tokens_.begin() + count - 1, tokens_.end(),
                     [this](int a, int b) { return precedes(a, b); });
    tokens_.resize(count);
    std::sort(tokens_.begin(), tokens_.end());
  }

  // Takes the most probable from a heap: of a large vocabulary few tokens hold a share.
  void keep_nucleus(double share) {
    if (share >= 1.0) {
      return;
    }
    const double wanted = share * std::accumulate(shares_.begin(), shares_.end(), 0.0);
    std::vector<std::size_t> heap(tokens_.size());
    std::iota(heap.begin(), heap.end(), 0);
    const auto follows = [this](std::size_t a, std::size_t b) {
      return precedes(tokens_[b], tokens_[a]);
    };
    std::make_heap(heap.begin(), heap.end(), follows);
    auto end = heap.end();
    for (double sum = 0.0; end != heap.begin() && (sum < wanted || end == heap.end());) {
      std::pop_heap(heap.begin(), end, follows);
      sum += shares_[*--end];
    }
    std::vector<char> kept(tokens_.size(), 0);
    for (; end != heap.end(); ++end) {
      kept[*end] = 1;
    }
    keep_where([&](std::size_t i) { return kept[i] != 0; });
  }

  void keep_above(double share) {
    if (share > 0.0) {
      keep_where([&](std::size_t i) { return shares_[i] >= share; });
    }
  }

  template <class Condition>
  void keep_where(const Condition& condition) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (condition(i)) {
        tokens_[kept] = tokens_[i];
        shares_[kept++] = shares_[i];
      }
    }
    tokens_.resize(kept);
    shares_.resize(kept);
  }

  std::span<const double> logits_;
  std::vector<int> tokens_;  // in their order
  std::vector<double> shares_;
};

std::vector<int> different(std::span<const int> a, std::span<const int> b) {
  std::vector<int> tokens(a.begin(), a.end());
  tokens.insert(tokens.end(), b.begin(), b.end());
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  return tokens;
}

std::string_view name_of(Draw purpose) {
  return purpose == Draw::token   ? "sampling"
         : purpose == Draw::draft ? "sampling of drafts"
                                  : "acceptance of drafts";
}

}  // namespace

void penalise(std::span<double> logits, std::span<const int> prompt, std::span<const int> written,
              const Sampling& sampling) {
  if (sampling.repetition_penalty != 1.0) {
    for (const int token : different(prompt, written)) {
      double& logit = logits[token];
      logit =
          logit > 0.0 ? logit / sampling.repetition_penalty : logit * sampling.repetition_penalty;
    }
  }
  if (sampling.presence_penalty != 0.0) {
    for (const int token : different(written, {})) {
      logits[token] -= sampling.presence_penalty;
    }
  }
}

std::vector<double> probabilities(std::span<const double> logits, const Sampling& sampling) {
  require(!logits.empty(), "no logits to draw from");
  check_finite(logits);
  if (sampling.greedy()) {
    std::vector<double> result(logits.size(), 0.0);
    result[most_probable(logits)] = 1.0;
    return result;
  }
  return Candidates(logits, sampling).normalised();
}

int draw(std::span<const double> probabilities, double uniform) {
  int last = 0;
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] == 0.0) {
      continue;
    }
    last = static_cast<int>(i);
    if (uniform < probabilities[i]) {
      break;
    }
    uniform -= probabilities[i];
  }
  return last;
}

double uniform_of(const Sampling& sampling, Draw purpose, std::uint64_t place) {
  return random_uniform(random_key(sampling.seed, name_of(purpose)), place);
}

bool stays(std::span<const double> p, std::span<const double> q, int draft, double uniform) {
  return uniform * q[draft] < p[draft];
}

std::vector<double> without_draft(std::span<const double> p, std::span<const double> q) {
  std::vector<double> rest(p.size());
  double total = 0.0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    rest[i] = std::max(p[i] - q[i], 0.0);
    total += rest[i];
  }
  if (total == 0.0) {  // p and q are one but for their rounding
    return {p.begin(), p.end()};
  }
  for (double& share : rest) {
    share /= total;
  }
  return rest;
}

int sample(std::span<const double> logits, const Sampling& sampling, std::uint64_t place) {
  if (sampling.greedy()) {
    check_finite(logits);
    return most_probable(logits);
  }
  return draw(probabilities(logits, sampling), uniform_of(sampling, Draw::token, place));
}

}  // namespace qnext
