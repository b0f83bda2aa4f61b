// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qnext {

/// How the next token is drawn. Temperature first, then top-k, then top-p, as in transformers.
struct Sampling {
  double temperature = 1.0;  // 0: the most probable token, the lowest of equals
  int top_k = 0;             // 0: all
  double top_p = 1.0;        // the smallest set of most probable tokens that holds this share
  std::uint64_t seed = 1;
};

/// The probabilities that `sample` draws from.
std::vector<double> probabilities(std::span<const double> logits, const Sampling& sampling);

/// Draw number `count` of the stream that the seed names.
int sample(std::span<const double> logits, const Sampling& sampling, std::uint64_t count);

}  // namespace qnext
